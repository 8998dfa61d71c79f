"""What others say, read with a limit of bytes and an absolute deadline.

Others are guests, their roots, consoles and programs, and files where anybody may write. Nothing
they say is kept beyond the limit, no drip of bytes puts the deadline off, and at either the whole
process group of who was asked is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# More than any table, list of hashes or log's end that umlaan asks for; far less than memory.
MOST = 8 << 20
LATE = 124
_PIECE = 65536


class TooMuch(OSError):
    """Somebody said more than the limit; the message names who, and the limit."""


def size(count: int) -> str:
    """A limit as a message says it: 8 MB, 64 KB."""
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} KB"


@dataclass(frozen=True)
class Said:
    """What a program said: its exit code, both streams, and what kept it from being all of it."""

    code: int
    output: str
    errors: str
    fault: str = ""
    late: bool = False

    @property
    def last(self) -> str:
        """Why there is no good answer, in one line."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        return self.fault or (lines[-1] if lines else f"exit code {self.code}")


class Program:
    """A program that is listened to: in a session of its own, its output never more than most."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        data: bytes | None = None,
        most: int = MOST,
        errors: int = subprocess.PIPE,
    ) -> None:
        self.most = most
        self.fault = ""
        self.late = False
        self.said: dict[str, bytearray] = {"output": bytearray(), "errors": bytearray()}
        feed = _fed(data) if data is not None else None
        try:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL if feed is None else feed,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        finally:
            if feed is not None:
                os.close(feed)

    def streams(self) -> dict[str, Any]:
        """Its open pipes by name."""
        pipes = {"output": self.process.stdout, "errors": self.process.stderr}
        return {name: pipe for name, pipe in pipes.items() if pipe and not pipe.closed}

    def take(self, name: str, pipe: Any) -> bool:
        """Take what is there; False at the end, and at the limit, where the program is ended."""
        try:
            data = os.read(pipe.fileno(), _PIECE)
        except BlockingIOError:
            return True
        room = self.most - sum(map(len, self.said.values()))
        self.said[name] += data[:room]
        if len(data) > room:
            self.fault = f"said more than {size(self.most)}, which is not read"
            self.kill()
        return bool(data) and not self.fault

    def kill(self) -> None:
        """End it with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Listen no more: what it still says ends at a closed pipe."""
        for pipe in self.streams().values():
            pipe.close()

    def text(self, name: str = "output") -> str:
        """What it said, as text; bytes that are none are replaced."""
        return self.said[name].decode(errors="replace")

    def end(self, deadline: float) -> Said:
        """Its answer, once it was heard; what still runs at the deadline (monotonic) is killed."""
        try:
            code = self.process.wait(0 if self.fault else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.late = not self.fault
            self.fault = self.fault or "did not end"
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self.close()
        output, errors = self.text(), self.text("errors")
        return Said(LATE if self.fault else code, output, errors, self.fault, self.late)


def _fed(data: bytes) -> int:
    """A file with the data: nobody has to feed it, however slow it is read."""
    feed = os.memfd_create("fed", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(feed, view) :]
    os.lseek(feed, 0, os.SEEK_SET)
    return feed


def hear(programs: Iterable[Program], deadline: float) -> list[Program]:
    """Listen to all at once until each has said all, or the deadline (monotonic); who is late."""
    with selectors.DefaultSelector() as selector:
        for one in programs:
            for name, pipe in one.streams().items():
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, (one, name))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                one, name = key.data
                source: Any = key.fileobj
                if source.closed or one.take(name, source):
                    continue
                # Of one that was ended nothing more is taken.
                for done in one.streams().values() if one.fault else (source,):
                    selector.unregister(done)
                    done.close()
        late = {id(key.data[0]): key.data[0] for key in selector.get_map().values()}
    return list(late.values())


def run(
    words: Sequence[str],
    seconds: float,
    *,
    data: bytes | None = None,
    most: int = MOST,
    errors: int = subprocess.PIPE,
) -> Said:
    """Run a program to its end: its code, 124 where it had to be ended, and why.

    OSError if it cannot be started. errors: subprocess.STDOUT mixes both streams.
    """
    deadline = time.monotonic() + seconds
    one = Program(words, data=data, most=most, errors=errors)
    try:
        if hear([one], deadline):
            one.fault, one.late = f"no answer in {seconds:.0f} s", True
            one.kill()
        return one.end(deadline)
    except BaseException:
        one.kill()
        raise
    finally:
        one.close()


def read(path: str, most: int = MOST, *, follow: bool = True) -> bytes:
    """A whole file: never one that blocks (a FIFO, a device), never more than most.

    OSError says why not. follow=False refuses a link, for folders where others may make one.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags | (0 if follow else os.O_NOFOLLOW))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", path)
        parts, left = [], most + 1
        # In pieces: files of /proc have no size, and a short read is not their end.
        while left and (data := file.read(min(left, 1 << 20))):
            parts.append(data)
            left -= len(data)
    if not left:
        raise TooMuch(errno.EFBIG, f"is larger than {size(most)}, which is not read", path)
    return b"".join(parts)


def tail(path: str, most: int = 16384) -> bytes:
    """The end of a log."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", path)
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read(most)
