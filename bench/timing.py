"""A command timed, with the memory of what belongs to umlaan in it; medians and loads."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The words by which a process of the run's is umlaan's own and no compiler, ssh or mmdebstrap.
OWN = (b"pyinfra", b"umlaan.agent")
EVERY_S = 0.2


class Failed(Exception):
    """A step of the benchmark that did not do what it should; the message is for its user."""


@dataclass
class Timed:
    """One command: wall seconds, what it printed, peak bytes of umlaan's own processes in it.

    cpu: seconds of processor of all that it waited for; guests and services go on without it.
    """

    seconds: float
    output: str
    code: int
    own_bytes: int = 0
    cpu: float = 0.0


@dataclass
class Sampler(threading.Thread):
    """Watches a process and all below it until it is told to stop."""

    pid: int
    peak: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.done.wait(EVERY_S):
            self.peak = max(self.peak, own_memory(self.pid))


def own_memory(top: int) -> int:
    """Bytes that umlaan's own processes below a process hold now; shared pages count once."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name in brackets may hold blanks.
                parents[int(folder.name)] = int(
                    (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
                )
            except (OSError, ValueError, IndexError):
                continue
    total = 0
    for pid in parents:
        at = pid
        while at not in (top, 0) and at in parents:
            at = parents[at]
        if at == top:
            total += _pss(pid)
    return total


def _pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read()
        if not any(word in words for word in OWN):
            return 0
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
    except OSError:
        return 0


def timed(
    words: list[str], cwd: str | Path = "/", env: Mapping[str, str] | None = None, want: int = 0
) -> Timed:
    """Run a command to its end. Failed, quoting its last lines, where its exit code is another."""
    started, used = time.monotonic(), cpu()
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    sampler = Sampler(process.pid)
    sampler.start()
    try:
        output, _ = process.communicate()
    finally:
        sampler.done.set()
    seconds = time.monotonic() - started
    if process.returncode != want:
        raise Failed(
            f"{' '.join(words)[:300]}: exit code {process.returncode}\n"
            + "\n".join(f"    {line}" for line in output.splitlines()[-15:])
        )
    return Timed(seconds, output, process.returncode, sampler.peak, cpu() - used)


def cpu() -> float:
    """Processor seconds of all processes that this one has waited for, and of theirs."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def load() -> str:
    """The load of the last minute, and how many processors share it."""
    return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} processors"


def drop_caches() -> bool:
    """Have the kernel forget what it read from disks; False where it may not be asked."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


def say(text: str) -> None:
    """A line for whoever waits."""
    print(f"[{time.strftime('%H:%M:%S')}, {load()}] {text}", flush=True)
