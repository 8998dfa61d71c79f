"""Verbs that are pyinfra runs: the same command line as by hand, streamed, its exit code kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from umlaan.cli.chosen import Chosen
from umlaan.cli.fault import Fault
from umlaan.model.outputs import PlanOutput

VARIABLE = "UMLAAN_PLAN_FILE"
TAIL = 12


def pyinfra_words(
    choice: Chosen, deploy: str, options: Sequence[str], limit: Sequence[str] = ()
) -> list[str]:
    """The command line. Fault where the deploy file is not in this folder."""
    for path in (choice.path, deploy):
        if not Path(path).exists():
            raise Fault(
                f"there is no {path} here",
                "run umlaan in the project's folder, where deploy.py and inventory.py stand",
            )
    words = [sys.executable, "-m", "pyinfra", *options, *choice.words()]
    for name in limit:
        words += ["--limit", name]
    return [*words, choice.path, deploy]


def limits(choice: Chosen, nodes: Sequence[str] | None) -> list[str]:
    """pyinfra's names of these nodes and lab hosts. Fault naming those that there are."""
    if not nodes:
        return []
    # Only here: a run of the whole lab need not read the inventory twice.
    from umlaan.cli.session import open_session

    session = open_session(choice)
    hosts = {h.label: h.name for h in session.lab.hosts} | {
        h.name: h.name for h in session.lab.hosts
    }
    return [hosts[name] if name in hosts else f"@uml/{session.node(name).name}" for name in nodes]


def stream(choice: Chosen, deploy: str, limit: Sequence[str] = ()) -> int:
    """Run it on this terminal; its exit code. Ctrl-C goes to pyinfra, which ends in its own way."""
    command = pyinfra_words(choice, deploy, ["-y"], limit)
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


class DryRun:
    """A dry run in the background, its outcome in a file of its own."""

    def __init__(
        self, choice: Chosen, deploy: str = "deploy.py", limit: Sequence[str] = ()
    ) -> None:
        words = pyinfra_words(choice, deploy, ["--dry"], limit)
        self._folder = tempfile.TemporaryDirectory(prefix="umlaan-plan-")
        self._path = f"{self._folder.name}/plan.json"
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, VARIABLE: self._path, "PYINFRA_PROGRESS": "off"},
        )

    def result(self) -> PlanOutput:
        """Wait for it. Fault, with pyinfra's own last lines, where no plan could be made."""
        with self._folder:
            output, _ = self._process.communicate()
            try:
                text = Path(self._path).read_text()
            except OSError:
                lines = [line.strip() for line in output.splitlines() if line.strip()]
                told = [
                    line
                    for line in lines
                    if not line.startswith("-->") or line.startswith("--> pyinfra error")
                ]
                raise Fault("no plan could be made; pyinfra says:", *told[-TAIL:]) from None
        return PlanOutput.model_validate_json(text)
