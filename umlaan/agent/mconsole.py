"""A client of UML's management console: ``mconsole SOCKET WORD…``.

Its reply socket stands in a folder that every UML can reach and only root can write, because the
abstract one of uml_mconsole is not reachable from another network namespace. No link that a guest
may have put in the socket's place is followed, and it never waits for ever.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator

from umlaan.agent.files import RUN, make_folder, run_folder

_MAGIC = 0xCAFEBABE
_VERSION = 2
_DATA = 512
MOST = 1 << 20
# In /run: a full disk has no room for a socket.
REPLIES = f"{RUN}/reply"


class Silent(Exception):
    """The guest's mconsole did not answer."""


class Late(Silent):
    """It took the command and did not answer in time: it may still do what it was told."""


def ask(path: str, command: str, timeout: float = 5.0) -> tuple[bool, str]:
    """(accepted, text) of one command. Late if no answer comes in timeout seconds, else Silent."""
    data = command.encode()
    if len(data) >= _DATA:
        raise ValueError(f"mconsole command longer than {_DATA - 1} bytes")
    own = f"{REPLIES}/{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        try:
            _bind(link, own)
            link.settimeout(timeout)
            packet = struct.pack("=III", _MAGIC, _VERSION, len(data)) + data.ljust(_DATA, b"\0")
            with _door(path) as door:
                link.sendto(packet, f"/proc/self/fd/{door}")
            return _answer(link, time.monotonic() + timeout)
        except TimeoutError:
            raise Late(f"{path}: no answer to {command!r} in {timeout:g} s") from None
        except OSError as error:
            raise Silent(f"{path}: {error.strerror or error}") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(own)


def _bind(link: socket.socket, own: str) -> None:
    """Name the reply socket, for a UML of any user: who cannot list the folder cannot guess it."""
    run_folder()
    make_folder(REPLIES, 0o711)
    before = os.umask(0)
    try:
        link.bind(own)
    finally:
        os.umask(before)


@contextlib.contextmanager
def _door(path: str) -> Iterator[int]:
    """A descriptor of UML's socket: below its uml_dir a guest may have put what it likes."""
    folder, umid = os.path.split(os.path.dirname(path))
    flags = os.O_PATH | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:

        def opened(name: str, more: int, at: int | None) -> int:
            descriptor = os.open(name, flags | more, dir_fd=at)
            stack.callback(os.close, descriptor)
            return descriptor

        top = opened(folder, os.O_DIRECTORY, None)
        inner = opened(umid, os.O_DIRECTORY | os.O_NOFOLLOW, top)
        door = opened(os.path.basename(path), os.O_NOFOLLOW, inner)
        if not stat.S_ISSOCK(os.fstat(door).st_mode):
            raise OSError(f"{path} is no socket")
        yield door


def _answer(link: socket.socket, deadline: float) -> tuple[bool, str]:
    text = b""
    while len(text) <= MOST:
        # Of all packets together: a guest that goes on and on gets no more time for it.
        link.settimeout(max(0.001, deadline - time.monotonic()))
        packet = link.recv(12 + _DATA)
        if len(packet) < 12:
            raise Silent("a broken answer")
        error, more, length = struct.unpack("=III", packet[:12])
        text += packet[12 : 12 + length].rstrip(b"\0")
        if not more:
            return error == 0, text.decode(errors="replace")
    raise Silent(f"it answers with more than {MOST >> 20} MB")


def main(argv: list[str]) -> int:
    """The ``mconsole`` verb: 0 if accepted, 1 if refused, 69 without an answer."""
    if len(argv) < 2:
        print("usage: mconsole SOCKET COMMAND…", file=sys.stderr)
        return 64
    try:
        accepted, text = ask(argv[0], " ".join(argv[1:]))
    except (Silent, ValueError) as error:
        print(f"mconsole: {error}", file=sys.stderr)
        return 69
    print(text.rstrip("\n"), file=sys.stdout if accepted else sys.stderr)
    return 0 if accepted else 1
