"""A client of UML's management console: ``mconsole SOCKET WORD…``.

It binds its reply socket in the file system beside UML's own, because the abstract one of
uml_mconsole is not reachable from another network namespace, and it never waits for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys

from umlaan.agent.files import RUN, run_folder

_MAGIC = 0xCAFEBABE
_VERSION = 2
_DATA = 512
SPARE = RUN


class Silent(Exception):
    """The guest's mconsole did not answer."""


class Late(Silent):
    """It took the command and did not answer in time: it may still do what it was told."""


def ask(path: str, command: str, timeout: float = 5.0) -> tuple[bool, str]:
    """(accepted, text) of one command. Late if no answer comes in timeout seconds, else Silent."""
    data = command.encode()
    if len(data) >= _DATA:
        raise ValueError(f"mconsole command longer than {_DATA - 1} bytes")
    own = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        try:
            own = _bind(link, os.path.dirname(os.path.dirname(path)))
            link.settimeout(timeout)
            link.sendto(
                struct.pack("=III", _MAGIC, _VERSION, len(data)) + data.ljust(_DATA, b"\0"), path
            )
            return _answer(link)
        except TimeoutError:
            raise Late(f"{path}: no answer to {command!r} in {timeout:g} s") from None
        except OSError as error:
            raise Silent(f"{path}: {error.strerror or error}") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(own)


def _bind(link: socket.socket, folder: str) -> str:
    """Name the reply socket in the folder, or where a full disk has no room for it below /run."""
    for place in (folder, SPARE):
        own = f"{place}/.mc-{os.getpid()}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(own)
            link.bind(own)
        except OSError as error:
            if place == SPARE or error.errno not in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
                raise
            run_folder()
        else:
            break
    return own


def _answer(link: socket.socket) -> tuple[bool, str]:
    text = b""
    while True:
        packet = link.recv(12 + _DATA)
        if len(packet) < 12:
            raise Silent("a broken answer")
        error, more, length = struct.unpack("=III", packet[:12])
        text += packet[12 : 12 + length].rstrip(b"\0")
        if not more:
            return error == 0, text.decode(errors="replace")


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
