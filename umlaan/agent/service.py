"""One service of the supervisor: its process as it is recorded, and its log, turned as it grows."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from umlaan.agent.files import make_folder

LOG_MAX = 1_000_000
LOG_FILES = 3

Row = dict[str, Any]


@dataclass
class Service:
    """One supervised program: its process, its log, and how often it had to be started."""

    name: str
    hash: str
    process: subprocess.Popen[bytes] | None = None
    start: int | None = None
    restarts: int = 0
    failures: int = 0
    due: float = 0.0
    began: float = 0.0
    said: str = ""
    deadline: float | None = None
    going: bool = False
    log: Any = field(default=None, repr=False)

    def row(self) -> Row:
        """For the status file."""
        pid = self.process.pid if self.process else None
        return {
            "pid": pid,
            "start": self.start if pid else None,
            "restarts": self.restarts,
            "said": self.said,
            "hash": self.hash,
        }

    def end(self, number: signal.Signals) -> None:
        """Signal the whole group of it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class Log:
    """One service's output: its pipe, its file, turned when it has grown."""

    def __init__(self, path: str) -> None:
        self.path = path
        make_folder(os.path.dirname(path), 0o700)
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)
        self.file = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def take(self) -> None:
        """Copy what is there; a full disk loses lines, never the service."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.reader, 65536)
            with contextlib.suppress(OSError):
                os.write(self.file, data)
                if os.fstat(self.file).st_size >= LOG_MAX:
                    self.turn()

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        with contextlib.suppress(OSError):
            os.write(self.file, f"[umlaan: {time.strftime('%F %T')} {text}]\n".encode())

    def turn(self) -> None:
        """Begin a new file; the ones before are .1, .2."""
        for number in range(LOG_FILES - 1, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(older, f"{self.path}.{number}")
        fresh = self._open()
        os.close(self.file)
        self.file = fresh

    def close(self) -> None:
        """Give the descriptors back."""
        for number in (self.reader, self.writer, self.file):
            os.close(number)
