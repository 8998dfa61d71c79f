"""Files on the lab host: written beside and renamed, locked with a holder's name."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any

from umlaan.agent import bounded, trust
from umlaan.agent.atomic import new_file
from umlaan.agent.patience import Wait

# A stamp names each file of a kernel's modules or of a DVS tree.
JSON_MOST = 64 << 20


def write_atomic(path: str, data: bytes, mode: int | None = None) -> None:
    """Write beside, sync, rename: the file is old or new, never half. OSError if it cannot.

    mode: exactly this one, whatever the umask is; without it 0644 as the umask narrows it.
    """
    with new_file(path, mode) as made, open(made, "r+b", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def write_json(path: str, value: Any) -> None:
    """A JSON file, atomically."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: str) -> Any:
    """The value of a JSON file; None if it is not there or not whole."""
    try:
        return json.loads(bounded.read(path, JSON_MOST))
    except (OSError, ValueError, RecursionError):
        return None


def read_short(path: str, limit: int = 64) -> bytes:
    """A small file that a guest may have put there: no link, no device, no more than it should."""
    return bounded.read(path, limit, follow=False)


def fault_of(error: OSError, what: str) -> str:
    """An error of the system's in one line: the file it is about, or what was being done."""
    return f"{error.filename or what}: {error.strerror or error}"


RUN = "/run/umlaan"


def narrow_umask() -> None:
    """What this process and its commands make is never writable for others."""
    os.umask(os.umask(0o077) | 0o022)


def make_folder(path: str, mode: int = 0o711) -> None:
    """A folder of exactly this mode; those above it that are missing can only be passed through."""
    above = os.path.dirname(path)
    if above and not os.path.isdir(above):
        make_folder(above)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    if stat.S_IMODE(os.stat(path).st_mode) != mode:
        os.chmod(path, mode)


def run_folder() -> str:
    """What lasts for this boot: locks above all, in a folder that nobody but root can enter."""
    make_folder(RUN, 0o700)
    return RUN


def open_lock(path: str) -> int:
    """Open a lock file that nobody else can open, and so nobody else can hold."""
    folder = os.path.dirname(path) or "."
    if folder == RUN or folder.startswith(f"{RUN}/"):
        run_folder()
    if not os.path.isdir(folder):
        make_folder(folder)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    # One that an earlier version left may be readable: that is enough to hold it.
    os.fchmod(descriptor, 0o600)
    return descriptor


def name_holder(descriptor: int, holder: str) -> None:
    """Write into a lock that is held who has it; on a full disk it holds without a name."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{holder} (pid {os.getpid()})\n".encode(), 0)


def holder_of(descriptor: int) -> str:
    """Who has a lock that is held: who wrote its name into it, if the kernel says the same."""
    said = os.pread(descriptor, 400, 0).decode(errors="replace").strip()
    pid = _locker(descriptor)
    if pid and not said.endswith(f"(pid {pid})"):
        return _told(pid)
    return said or "another process"


def _locker(descriptor: int) -> int | None:
    """The pid that the kernel has for an flock; None where it tells none (some file systems)."""
    info = os.fstat(descriptor)
    wanted = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[1:2] == ["FLOCK"] and words[5] == wanted:
                return int(words[4])
    return None


def _told(pid: int) -> str:
    """A process that did not say its name, in words."""
    with contextlib.suppress(OSError):
        uid = os.stat(f"/proc/{pid}").st_uid
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read(200).replace(b"\0", b" ").decode(errors="backslashreplace").strip()
        return f"{trust.name_of(uid)}: {ascii(command)[1:-1] or 'a process'} (pid {pid})"
    return f"a process that has ended (pid {pid})"


@contextlib.contextmanager
def locked(path: str, holder: str, wait: float = 0.0) -> Iterator[None]:
    """Hold an flock that names its holder.

    TimeoutError, naming who has it, once the same one has had it for wait seconds.
    """
    descriptor = open_lock(path)
    waiting = Wait(wait, looks=0)
    said = False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting.goes_on(who := holder_of(descriptor)):
                    raise TimeoutError(f"{path} is held by {who}") from None
                if not said and waiting.seconds() > 1:
                    said = True
                    print(f"umlaan: waits for {who}", file=sys.stderr)
                waiting.pause(most=0.2)
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
