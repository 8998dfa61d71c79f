"""A command's output on this terminal: what is in it is shown, not obeyed.

Into a file or a pipe it goes byte for byte, unless a verb wants it shown there, too.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol, TextIO

from umlaan.agent.visible import Stream, visible

_PIECE = 65536


class Sink(Protocol):
    """Where one stream of a command goes."""

    def take(self, data: bytes, *, final: bool = False) -> None:
        """The next bytes; final: there are no more."""
        ...


class Plainly:
    """Straight to a stream of this process, made visible."""

    def __init__(self, target: TextIO) -> None:
        self.target = target
        self.text = Stream()

    def take(self, data: bytes, *, final: bool = False) -> None:
        """Write it as it comes, so that a question without a newline is seen."""
        self.target.write(self.text.take(data, final=final))
        self.target.flush()


class Prefixed:
    """A word before each line; a line that does not end is broken, not kept."""

    def __init__(self, target: TextIO, prefix: str) -> None:
        self.target = target
        self.prefix = prefix
        self.shown = target.isatty()
        self.held = b""

    def take(self, data: bytes, *, final: bool = False) -> None:
        """Write what is whole."""
        *lines, self.held = (self.held + data).split(b"\n")
        if self.held and (final or len(self.held) >= _PIECE):
            lines.append(self.held)
            self.held = b""
        for line in lines:
            self._write(line)

    def _write(self, line: bytes) -> None:
        if self.shown:
            text = visible(line.removesuffix(b"\r"))
            self.target.write(f"{self.prefix}{text}\n")
        else:
            self.target.flush()
            self.target.buffer.write(self.prefix.encode() + line + b"\n")
        self.target.flush()


def run(words: Sequence[str], sinks: Sequence[Sink | None], *, quiet: bool = True) -> int:
    """Run a command line, its output and errors into the sinks; None inherits. Its exit code.

    quiet: it gets no input of ours.
    """
    pipes = [os.pipe() if sink else None for sink in sinks]
    output, errors = (pipe[1] if pipe else None for pipe in pipes)
    stdin = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(words, stdin=stdin, stdout=output, stderr=errors)
    try:
        with _leaving_signals_to(process) if not quiet else nullcontext():
            _copy([(pipe, sink) for pipe, sink in zip(pipes, sinks, strict=True) if pipe and sink])
            code = process.wait()
    except BaseException:
        process.terminate()
        raise
    return code if code >= 0 else 128 - code


def _copy(ways: list[tuple[tuple[int, int], Sink]]) -> None:
    with selectors.DefaultSelector() as selector:
        for (reader, writer), sink in ways:
            os.close(writer)
            selector.register(reader, selectors.EVENT_READ, sink)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, _PIECE)
                key.data.take(data, final=not data)
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)


@contextmanager
def _leaving_signals_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C reaches the command, which ends in its own way; who ends us ends it."""

    def end(number: int, _frame: object) -> None:
        process.terminate()
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show(words: Sequence[str], *, always: bool = False) -> int:
    """Run a command line on this terminal; see the module. Its exit code."""
    streams = (sys.stdout, sys.stderr)
    sys.stdout.flush()
    sinks = [Plainly(stream) if always or stream.isatty() else None for stream in streams]
    return run(words, sinks, quiet=False)
