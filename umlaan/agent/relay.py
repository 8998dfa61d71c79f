"""Pipes between a sandboxed command and the files that it reads from or writes to.

Who has a file open can open it anew through /proc/self/fd, for writing too and from its start:
what a root is fed, or a log that it only is to append to, would be open to whatever runs in it.
"""

from __future__ import annotations

import os
import stat
import threading
from types import TracebackType

_CHUNK = 1 << 16


def _copy(source: int, target: int) -> None:
    """Until the source's end; a reader that does not want more ends it, too."""
    try:
        while data := os.read(source, _CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(target, view) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(source)
        os.close(target)


class Streams:
    """A command's standard streams: each that is a file is a pipe in its stead, the others as is.

    given is for Popen; begin once it has started. The block ends when all that was written is on
    its way.
    """

    def __init__(self) -> None:
        self.given: dict[str, int] = {}
        self._theirs: list[int] = []
        self._in: tuple[int, int] | None = None
        self._out: list[threading.Thread] = []
        files = [stat.S_ISREG(os.fstat(number).st_mode) for number in (0, 1, 2)]
        if files[0]:
            reads, writes = os.pipe()
            self.given["stdin"] = reads
            self._theirs.append(reads)
            self._in = (os.dup(0), writes)
        if files[1]:
            self.given["stdout"] = self._outward(1)
        if files[2]:
            same = files[1] and os.path.sameopenfile(1, 2)
            self.given["stderr"] = self.given["stdout"] if same else self._outward(2)

    def _outward(self, number: int) -> int:
        reads, writes = os.pipe()
        self._theirs.append(writes)
        self._out.append(threading.Thread(target=_copy, args=(reads, os.dup(number))))
        return writes

    def begin(self) -> None:
        """Close what is the command's, copy the rest."""
        for descriptor in self._theirs:
            os.close(descriptor)
        if self._in is not None:
            # A command that does not read to the end must not be waited for.
            threading.Thread(target=_copy, args=self._in, daemon=True).start()
        for thread in self._out:
            thread.start()

    def __enter__(self) -> Streams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for thread in self._out:
            if thread.ident is not None:
                thread.join()
