"""Run one long command: log, progress lines, lock, and a failure that says all it knows.

``run --step TEXT --log FILE [--lock FILE] [--progress kbuild:TOTAL|lines] -- CMD…``
The command dies with whoever started this (a killed run leaves no build behind). Progress goes to
standard output every few seconds; on failure the step, the command, the log and its last lines go
to standard error, and the exit code is the command's. Lines of the log that begin with "umlaan: "
are shown at once; "umlaan-total: N" says how many files there are to compile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from umlaan.agent import bounded
from umlaan.agent.files import locked, make_folder
from umlaan.agent.visible import visible, word

EVERY_S = 3.0
TAIL_LINES = 15
_KBUILD = re.compile(rb"^ +(?:CC|AS|LD|AR|HOSTCC|CPP|CC \[M\]|LD \[M\]|OBJCOPY) ", re.MULTILINE)


_SAID = b"umlaan: "
_TOTAL = b"umlaan-total: "
_COUNT = re.compile(rb"[0-9]{1,9}")
# Of a log at one look; what is more waits for the next.
MOST = 4 << 20


class Progress:
    """Reads what the command has logged so far and says how far it is."""

    def __init__(self, step: str, kind: str, log: str) -> None:
        self.step = step
        self.kind, _, total = kind.partition(":")
        self.total = int(total or 0)
        self.log = log
        self.offset = os.path.getsize(log) if os.path.exists(log) else 0
        self.done = 0
        self.last = ""
        self.phase = ""
        self.started = time.monotonic()
        self.shown = self.started

    def read(self) -> None:
        """Take in the whole lines that came since the last time."""
        with open(self.log, "rb") as file:
            file.seek(self.offset)
            text = file.read(MOST)
        # A line that does not end within that is taken as it comes.
        whole = text.rfind(b"\n") + 1 or (len(text) if len(text) == MOST else 0)
        self.offset += whole
        if self.kind == "kbuild":
            self.done += len(_KBUILD.findall(text[:whole]))
        for said in text[:whole].split(b"\n"):
            if said.startswith(_SAID):
                self.phase = word(said[len(_SAID) :].decode(errors="replace"))
                print(f"{self.step}: {self.phase}", flush=True)
            elif said.startswith(_TOTAL):
                count = said[len(_TOTAL) :].strip()
                self.done, self.total = 0, int(count) if _COUNT.fullmatch(count) else 0
        lines = text[:whole].decode(errors="replace").split("\n")
        self.last = next((line.strip() for line in reversed(lines) if line.strip()), self.last)

    def line(self) -> str:
        """One line: the step, how much of how much, seconds so far."""
        seconds = time.monotonic() - self.started
        if self.kind == "kbuild" and self.done:
            # The total is of the last build; a first one may go past it.
            if self.total and self.done <= self.total:
                share = f"{self.done}/{self.total} files ({100 * self.done // self.total} %)"
            else:
                share = f"{self.done} files"
            return f"{self.step}: {share}, {seconds:.0f} s"
        # A program that says its phases knows them better than its last line does.
        return f"{self.step}: {seconds:.0f} s, {word(self.phase or self.last, 90)}"

    def tick(self) -> None:
        """Print the line when it is time to."""
        now = time.monotonic()
        if now - self.shown >= EVERY_S:
            self.shown = now
            self.read()
            print(self.line(), flush=True)


def last_lines(log: str, start: int, count: int = TAIL_LINES) -> list[str]:
    """The last lines of a log, from where this command began to write."""
    try:
        size = os.path.getsize(log)
        text = visible(bounded.tail(log, min(16384, max(0, size - start))))
        return [word(line, 1000) for line in text.rstrip("\n").split("\n")[-count:]]
    except OSError as error:
        return [f"(log unreadable: {error})"]


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(step: str, command: list[str], log: str, progress: str, parent: int | None = None) -> int:
    """Run the command to its end; its exit code (128 + signal if it was killed).

    parent: who asked for it, where that was before a long wait; it dies with the caller.
    """
    parent = os.getppid() if parent is None else parent
    if os.getppid() != parent:
        return 143
    make_folder(os.path.dirname(log), 0o700)
    start = os.path.getsize(log) if os.path.exists(log) else 0
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    with open(log, "ab") as file:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"# {stamp} {step}\n# {shlex.join(command)}\n".encode())
        file.flush()
        meter = Progress(step, progress, log)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )

    def stop(number: int, _frame: object) -> None:
        _end(process)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        while True:
            try:
                code = process.wait(0.25)
                break
            except subprocess.TimeoutExpired:
                meter.tick()
                if os.getppid() != parent:
                    return 143
        meter.read()
    finally:
        # Also where nobody reads what this prints any more: the lock ends with this, so must it.
        if process.poll() is None:
            _end(process)
    if code:
        print(f"{step}: failed, exit code {code}", file=sys.stderr)
        print(f"  command: {shlex.join(command)[:2000]}", file=sys.stderr)
        print(f"  log: {log}; its last lines:", file=sys.stderr)
        for line in last_lines(log, start):
            print(f"    {line}", file=sys.stderr)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _lock(path: str | None, step: str) -> Iterator[None]:
    if path is None:
        yield
        return
    with locked(path, step, wait=1800):
        yield


def main(argv: list[str]) -> int:
    """The ``run`` verb."""
    parser = argparse.ArgumentParser(prog="run")
    parser.add_argument("--step", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--lock")
    parser.add_argument("--progress", default="lines")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    parent = os.getppid()
    try:
        with _lock(options.lock, options.step):
            return run(options.step, command, options.log, options.progress, parent)
    except TimeoutError as error:
        print(f"{options.step}: {error}", file=sys.stderr)
        return 75
    except BrokenPipeError:
        # Whoever waited is gone.
        return 143
    except OSError as error:
        print(f"{options.step}: not done: {error}; its log is {options.log}", file=sys.stderr)
        return 1
