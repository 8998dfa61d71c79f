"""``console DIR [--tail N]``: attach this terminal to a node's console; Ctrl-] detaches.

The log's last lines come first. At the end of a piped standard input it detaches once the guest
is quiet, so that it can be scripted. Exit code 0 when detached, 69 without a holder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import socket
import sys
import termios
import tty
from collections.abc import Iterator

from umlaan.agent.start import last_lines

DETACH = b"\x1d"
QUIET_S = 1.0


def attach(directory: str) -> socket.socket:
    """A connection to the holder. OSError if there is none."""
    # A socket's path has at most 107 bytes; a relative name has no such trouble.
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.chdir(directory)
        link.connect("console.sock")
    except OSError:
        link.close()
        raise
    finally:
        os.fchdir(here)
        os.close(here)
    return link


def copy(link: socket.socket, keys: int, screen: int) -> str:
    """Copy both ways until someone ends it; what ended it."""
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ, "guest")
        # A regular file or /dev/null cannot be waited for, and has nothing to wait for.
        with contextlib.suppress(PermissionError):
            selector.register(keys, selectors.EVENT_READ, "keys")
        quiet: float | None = None
        while True:
            events = selector.select(quiet)
            if not events:
                return "detached"
            for event, _ in events:
                if event.data == "guest":
                    data = link.recv(65536)
                    if not data:
                        return "the guest has ended"
                    _write(screen, data)
                else:
                    data = os.read(keys, 4096)
                    typed, found, _ = data.partition(DETACH)
                    link.sendall(typed)
                    if found:
                        return "detached"
                    if not data:
                        # A script has said all: what it caused may still come.
                        selector.unregister(keys)
                        quiet = QUIET_S


def _write(screen: int, data: bytes) -> None:
    while data:
        data = data[os.write(screen, data) :]


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Raw keys while attached; the terminal is as it was afterwards."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def main(argv: list[str]) -> int:
    """The ``console`` verb."""
    parser = argparse.ArgumentParser(prog="console")
    parser.add_argument("dir")
    parser.add_argument("--tail", type=int, default=20)
    options = parser.parse_args(argv)
    try:
        link = attach(options.dir)
    except OSError as error:
        print(f"no console to attach to ({error.strerror}); the log ends:", file=sys.stderr)
        print("\n".join(last_lines(f"{options.dir}/console.log", options.tail)), file=sys.stderr)
        return 69
    for line in last_lines(f"{options.dir}/console.log", options.tail):
        print(line)
    print("[attached; Ctrl-] detaches]", flush=True)
    with link, _raw(0):
        try:
            how = copy(link, 0, 1)
        except (BrokenPipeError, ConnectionResetError):
            how = "the guest has ended"
    print(f"\r\n[{how}]", flush=True)
    return 0
