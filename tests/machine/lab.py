"""A user's folder of inventory and data for a lab host of a test's own, and runs of pyinfra."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reached import Reached

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


class Lab:
    """A folder with inventory and data, and the machine that is its lab host."""

    def __init__(self, folder: Path, machine: Reached, data: dict[str, Any]) -> None:
        self.folder, self.machine, self.data = folder, machine, dict(data)
        (folder / "group_data").mkdir(parents=True)
        for name in ("templates", "examples", "tasks"):
            (folder / name).symlink_to(REPOSITORY / name)
        (folder / "deploy.py").symlink_to(REPOSITORY / "deploy.py")

    def write(self, *nodes: str, **data: Any) -> None:
        lines = [f"node0 = [({self.machine.name!r}, {self.machine.data()!r})]"]
        lines.append(f"uml = {list(nodes)!r}")
        lines.append("builder = ['@local']")
        (self.folder / "inventory.py").write_text("\n".join(lines) + "\n")
        rows = [f"{name} = {value!r}" for name, value in {**self.data, **data}.items()]
        (self.folder / "group_data/all.py").write_text("\n".join(rows) + "\n")

    def run(
        self, story: str, *nodes: str, limit: str = "", timeout: float = 1800, **data: Any
    ) -> Result:
        """A run of pyinfra. data: what is otherwise than in the lab's data, this time."""
        self.write(*nodes, **data)
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
        assert match, f"exit code {done.returncode}: {done.stdout[-3000:]}"
        return Result(done.returncode, done.stdout, int(match[1]), int(match[2]), match[3])
