"""The lab host itself, as its kernels and modules need it: what it runs, its files, its tools."""

from __future__ import annotations

import subprocess
from typing import Any

from umlaan.agent.chamber import BuildError

# On the command line of a kernel that an entry of ours booted: which one.
MARK = "umlaan.entry"


def at(spec: dict[str, Any], path: str) -> str:
    """A path of the machine; below spec["root"] where a test gives one."""
    return f"{spec.get('root', '')}{path}"


def read(path: str) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def running(spec: dict[str, Any]) -> dict[str, str]:
    """release, boot_id and entry (empty where no entry of ours was booted)."""
    command_line = read(at(spec, "/proc/cmdline")).split()
    marks = [word.partition("=")[2] for word in command_line if word.startswith(f"{MARK}=")]
    return {
        "release": read(at(spec, "/proc/sys/kernel/osrelease")).strip(),
        "boot_id": read(at(spec, "/proc/sys/kernel/random/boot_id")).strip(),
        "entry": marks[-1] if marks else "",
    }


def run(words: list[str]) -> None:
    """Run a tool, output into the log. BuildError with its last line if it fails."""
    print(f"+ {' '.join(words)}", flush=True)
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = done.stdout.decode(errors="replace").rstrip()
    print(text, flush=True)
    if done.returncode:
        last = text.splitlines()[-1] if text else f"exit code {done.returncode}"
        raise BuildError(f"{words[0]}: {last}")
