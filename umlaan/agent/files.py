"""Files on the lab host: written beside and renamed, locked with a holder's name."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Any


def write_atomic(path: str, data: bytes, mode: int | None = None) -> None:
    """Write beside, sync, rename: the file is old or new, never half. OSError if it cannot.

    mode: exactly this one, whatever the umask is; without it 0644 as the umask narrows it.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    beside = f"{path}.new-{os.getpid()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode or 0o644)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        os.unlink(beside)
        raise
    os.close(descriptor)
    try:
        os.rename(beside, path)
    except OSError:
        os.unlink(beside)
        raise


def write_json(path: str, value: Any) -> None:
    """A JSON file, atomically."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: str) -> Any:
    """The value of a JSON file; None if it is not there or not whole."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (OSError, ValueError):
        return None


def fault_of(error: OSError, what: str) -> str:
    """An error of the system's in one line: the file it is about, or what was being done."""
    return f"{error.filename or what}: {error.strerror or error}"


def name_holder(descriptor: int, holder: str) -> None:
    """Write into a lock that is held who has it; on a full disk it holds without a name."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{holder} (pid {os.getpid()})\n".encode(), 0)


def holder_of(descriptor: int) -> str:
    """Who wrote its name into a lock that is held; "another process" where nobody did."""
    return os.pread(descriptor, 400, 0).decode(errors="replace").strip() or "another process"


@contextlib.contextmanager
def locked(path: str, holder: str, wait: float = 0.0) -> Iterator[None]:
    """Hold an flock that names its holder. TimeoutError, naming who has it, after wait seconds."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + wait
    said = False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{path} is held by {holder_of(descriptor)}") from None
                if not said and time.monotonic() > deadline - wait + 1:
                    said = True
                    print(f"umlaan: waits for {holder_of(descriptor)}", file=sys.stderr)
                time.sleep(0.2)
        name_holder(descriptor, holder)
        yield
    finally:
        os.close(descriptor)


def mounts_below(folder: str) -> list[str]:
    """Mount points at or below a folder: a reason to remove nothing there."""
    real = os.path.realpath(folder)
    # As bytes of the file system: any user's mount may have a name in any encoding.
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescaped(line.split(" ")[1]) for line in file]
    return [point for point in points if point == real or point.startswith(f"{real}/")]


def _unescaped(point: str) -> str:
    """The kernel writes a blank, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
