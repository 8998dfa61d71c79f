"""A network for one command of a stopped root: a loopback of its own, and there the mirrors.

Whose the root's programs are is not known: in the lab host's own network they would reach all that
listens on its loopback. A socket belongs to the namespace in which it was made, whoever accepts
from it: the proxy answers in there and goes out from here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator

from umlaan.agent import mirrors, proc

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
NAMES = ("http_proxy", "https_proxy")


class Network:
    """The namespace, by its descriptor, and the port of the proxy on its loopback."""

    def __init__(self, way: mirrors.Ways) -> None:
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            proc.unshare(proc.CLONE_NEWNET)
            try:
                self.namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                _loopback_up()
                self.door = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                self.door.bind(("127.0.0.1", 0))
                self.door.listen(64)
            finally:
                proc.enter(own)
        finally:
            os.close(own)
        threading.Thread(target=mirrors.serve, args=(self.door, way), daemon=True).start()

    def environment(self) -> dict[str, str]:
        """How a command is told of it."""
        url = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        return dict.fromkeys(NAMES, url)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace meanwhile, and so is what it starts."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            proc.enter(self.namespace)
            try:
                yield
            finally:
                proc.enter(own)
        finally:
            os.close(own)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        row = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack("16xH22x", fcntl.ioctl(link, _SIOCGIFFLAGS, row))[0]
        fcntl.ioctl(link, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
