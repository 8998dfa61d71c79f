"""Nodes of the sample tree on loopback: one folder of state and one copy of the tree each."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "examples/sample-dvs"
# Folder, and its way to dvk-lib: the order of the build.
FOLDERS = {
    "dvk-lib": "",
    "dvk-tests": "..",
    "dvk-proxies": "..",
    "dvk-proxies/test": "../..",
    "dvk-proxies/test/m3ftp": "../../..",
}
LIBRARY = {"ioctl": "stub_dvkcall.o", "ipc": "libdvkipc.so"}
TESTS, PROXIES, LOOPS, M3FTP = list(FOLDERS)[1:]


def copy_tree(to: Path) -> Path:
    """The sources alone, whatever somebody has built in the repository."""
    listed = subprocess.run(
        ["git", "-C", str(SOURCE), "ls-files", "-co", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(SOURCE / name, to / name)
    return to


def build(tree: Path, variant: str, cflags: str = "-O0 -Wall -Wextra -Werror") -> None:
    """All folders in order, as the README says it."""
    for folder, up in FOLDERS.items():
        arguments = [f"LIBS={up}/dvk-lib/{LIBRARY[variant]}"] if up else []
        subprocess.run(
            ["make", "-s", "-j2", "-C", str(tree / folder), f"CFLAGS={cflags}", *arguments],
            check=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )


class Node:
    """A node: its number, its tree, its state; every program runs in its own folder."""

    def __init__(self, number: int, tree: Path, state: Path, net: int, prefix: Sequence[str] = ()):
        self.number, self.tree, self.state, self.net = number, tree, state, net
        self.prefix = list(prefix)
        self.started: list[subprocess.Popen[str]] = []
        self.environment = {
            "PATH": os.environ["PATH"],
            "DVS_STATE": str(state),
            "DVS_HEARTBEAT_MS": "40",
            "DVS_DEADLINE_MS": "400",
            "DVS_TIMEOUT": "5",
            **{f"DVS_NODE_ADDR_{n}": self.address(n) for n in range(4)},
        }

    def address(self, number: int) -> str:
        return f"127.77.{self.net}.{10 + number}"

    def start(self, folder: str, command: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*self.prefix, *command.split()],
            cwd=self.tree / folder,
            env=self.environment | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(
        self, folder: str, command: str, code: int | None = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(folder, command, **env)
        out, err = process.communicate(timeout=60)
        if code is not None:
            assert process.returncode == code, f"{command}: {process.returncode}\n{out}{err}"
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def table(self, name: str) -> list[str]:
        return (self.state / name).read_text().splitlines()

    def row(self, table: str, first: int) -> list[str] | None:
        """The words of the row of a node or proxy; None where there is none."""
        for line in self.table(table)[1:]:
            if line.split()[0] == str(first):
                return line.split()
        return None

    def bound(self) -> dict[int, str]:
        """Endpoint → name, of the DC's processes."""
        words = [line.split() for line in self.table("DC0/procs")[1:]]
        return {int(row[1]): row[-1] for row in words}

    def up(self) -> None:
        self.run(TESTS, f"./test_dvs_init -n {self.number} -D 16777215 -C TEST_CLUSTER")
        self.run(TESTS, f"./test_dc_init -d 0 -o {self.state}")

    def down(self) -> None:
        """However the test ended: nothing that it started stays, stopped processes neither."""
        for line in self.table("proxies/info")[1:] if self.state.exists() else []:
            for pid in line.split()[2:4]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGCONT)
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.run(TESTS, "./test_dc_init -e -d 0", None)
        self.run(TESTS, "./test_dvs_init -e", None)


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    """Until it is true; the assertion shows what it was."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
