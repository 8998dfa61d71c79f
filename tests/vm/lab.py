"""A user's folder of inventory and data for node0 as a machine, and runs of pyinfra in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vm.machine import Machine

REPOSITORY = Path(__file__).resolve().parents[2]
LAST = re.compile(
    r"^umlaan: changed=(\d+) operations=\d+ failed=(\d+) seconds=[\d.]+ verdict=(\w+)$"
)


@dataclass
class Result:
    """One run: what it printed, and its last line."""

    code: int
    output: str
    changed: int
    failed: int
    verdict: str


# What the machine and its disks are made with; bin/test-tools brings it. Nothing here is skipped.
TOOLS = ("qemu-system-x86_64", "qemu-img", "sfdisk", "mmdebstrap", "grub-mkimage", "mke2fs", "ssh")
LIMIT = pytest.mark.timeout(7200)


class Lab:
    """A folder with inventory and data, and the machine that it names."""

    def __init__(self, folder: Path, machine: Machine, data: dict[str, Any]) -> None:
        self.folder, self.machine, self.data = folder, machine, dict(data)
        (folder / "group_data").mkdir(parents=True)
        for name in ("templates", "examples", "tasks"):
            (folder / name).symlink_to(REPOSITORY / name)
        (folder / "deploy.py").symlink_to(REPOSITORY / "deploy.py")

    def write(self, *nodes: str) -> None:
        reach = {
            "ssh_port": self.machine.port,
            "ssh_user": "root",
            "ssh_key": str(self.machine.key),
            "ssh_strict_host_key_checking": "off",
            "ssh_known_hosts_file": "/dev/null",
        }
        lines = [f"node0 = [('127.0.0.1', {reach!r})]", f"uml = {list(nodes)!r}"]
        lines.append("builder = ['@local']")
        (self.folder / "inventory.py").write_text("\n".join(lines) + "\n")
        rows = [f"{name} = {value!r}" for name, value in self.data.items()]
        (self.folder / "group_data/all.py").write_text("\n".join(rows) + "\n")

    def run(self, story: str, *nodes: str, limit: str = "", timeout: float = 3600) -> Result:
        self.write(*nodes)
        started = time.monotonic()
        words = [str(Path(sys.executable).parent / "pyinfra"), "-y", "inventory.py", story]
        words += ["--limit", limit] if limit else []
        done = subprocess.run(
            words,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYINFRA_PROGRESS": "off"},
        )
        print(done.stdout)
        print(f"--- {story}: {time.monotonic() - started:.0f} s")
        lines = done.stdout.rstrip().splitlines()
        match = LAST.match(lines[-1]) if lines else None
        assert match, done.stdout[-3000:]
        return Result(done.returncode, done.stdout, int(match[1]), int(match[2]), match[3])


@contextmanager
def booted(folder: Path, data: dict[str, Any]) -> Iterator[Lab]:
    """A lab whose node0 is a machine that has just booted; it is gone afterwards."""
    assert os.geteuid() == 0, "makes a disk image: needs root"
    missing = [name for name in TOOLS if not shutil.which(name)]
    assert not missing, f"not installed: {', '.join(missing)}; make test-vm installs them"
    machine = Machine(folder / "machine")
    machine.create()
    try:
        print(f"first boot: {machine.first_boot():.0f} s")
        yield Lab(folder / "lab", machine, data)
    finally:
        print(machine.tail(5))
        machine.kill()
