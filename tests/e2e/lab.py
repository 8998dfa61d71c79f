"""A real lab of a test's own: runs pyinfra as a user would, and reads its last line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PYINFRA = Path(sys.executable).parent / "pyinfra"
LAST = re.compile(
    r"^umlaan: changed=(\d+) operations=(\d+) failed=(\d+) seconds=([\d.]+) "
    r"verdict=(up|down|drifted|failed|absent)$"
)


@dataclass
class Result:
    """One run: exit code, all it printed, its last line's figures, wall time in seconds."""

    code: int
    output: str
    seconds: float
    changed: int = -1
    failed: int = -1
    verdict: str = ""
    stdout: str = ""

    def __post_init__(self) -> None:
        lines = self.output.rstrip().splitlines()
        match = LAST.match(lines[-1]) if lines else None
        if match:
            self.changed, self.failed = int(match.group(1)), int(match.group(3))
            self.verdict = match.group(5)


@dataclass
class Lab:
    """A lab named so that nothing else on the machine can be meant."""

    name: str
    folder: Path
    nodes: list[str] = field(default_factory=lambda: ["@uml/node1"])
    data: dict[str, str] = field(default_factory=dict)
    host_data: dict[str, dict[str, object]] = field(default_factory=dict)
    node0: object = "@local"
    builder: object = None

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    def write_inventory(self) -> Path:
        rows = [(name, self.host_data.get(name, {})) for name in self.nodes]
        path = self.folder / "inventory.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"node0 = [{self.node0!r}]\numl = {rows!r}\n"
        text += f"builder = [{self.builder!r}]\n" if self.builder else ""
        path.write_text(text)
        return path

    def words(self, *operations: str, options: tuple[str, ...] = ("-y",)) -> list[str]:
        return [str(PYINFRA), *options, *self._data(), str(self.write_inventory()), *operations]

    def _data(self) -> list[str]:
        data = {
            "lab": self.name,
            "state_dir": str(self.state_dir),
            "node.mem": "256M",
            **self.data,
        }
        return [word for key, value in data.items() for word in ("--data", f"{key}={value}")]

    def pyinfra(
        self, *operations: str, options: tuple[str, ...] = ("-y",), timeout: float = 1500
    ) -> Result:
        started = time.monotonic()
        done = subprocess.run(
            self.words(*operations, options=options),
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, "PYINFRA_PROGRESS": "off"},
        )
        return Result(done.returncode, done.stdout, time.monotonic() - started)

    def pyinfra_in(self, folder: Path, *words: str) -> Result:
        """pyinfra in a folder of a user's own, nothing given on the command line."""
        started = time.monotonic()
        done = subprocess.run(
            [str(PYINFRA), "-y", *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=300,
        )
        return Result(done.returncode, done.stdout, time.monotonic() - started)

    def deploy(self, *options: str) -> Result:
        return self.pyinfra("deploy.py", options=("-y", *options))

    def dry(self) -> Result:
        return self.pyinfra("deploy.py", options=("--dry",))

    def destroy(self) -> Result:
        return self.pyinfra("tasks/destroy.py")

    def exec(self, node: str, *command: str) -> Result:
        return self.pyinfra("exec", "--", *command, options=("-y", "--limit", node))

    def umlaan_words(self, verb: str, *words: str) -> list[str]:
        code = "from umlaan.cli import main; main()"
        inventory = str(self.write_inventory())
        return [sys.executable, "-c", code, "-i", inventory, *self._data(), verb, *words]

    @contextmanager
    def followed(self, verb: str, *words: str) -> Iterator[Iterator[str]]:
        """The lines of a verb that never ends by itself, as they come; it is ended afterwards."""
        with subprocess.Popen(
            self.umlaan_words(verb, *words), cwd=REPO, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                yield iter(process.stdout.readline, "")
            finally:
                process.terminate()

    def umlaan(
        self, verb: str, *words: str, typed: str | None = None, timeout: float = 900
    ) -> Result:
        """The umlaan command on this lab; its standard output alone is the result's stdout."""
        started = time.monotonic()
        done = subprocess.run(
            self.umlaan_words(verb, *words),
            cwd=REPO,
            input=typed if typed is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
        took = time.monotonic() - started
        result = Result(done.returncode, done.stderr + done.stdout, took)
        result.stdout = done.stdout
        return result

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the lab's network namespace."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *command], text=True, capture_output=True
        )
