"""The ``umlaan`` command: what a person does with a lab all day. A verb a file, each thin."""

from __future__ import annotations


def main() -> None:
    """The entry point; ends the process with the verb's exit code."""
    from umlaan.cli.app import run

    run()
