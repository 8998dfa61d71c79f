"""A TCP relay that flips one byte, or cuts the connection, at a place of the server's stream."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Relay:
    """Listens on `here` and passes on to `there`, on the same ports. Places are (port, offset)."""

    def __init__(
        self,
        there: str,
        here: str,
        ports: tuple[int, ...],
        flip: tuple[int, int] = (0, -1),
        cut: tuple[int, int] = (0, -1),
    ):
        self.there, self.flip, self.cut = there, flip, cut
        self.listeners = [socket.create_server((here, port)) for port in ports]
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Relay:
        for listener in self.listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in [*self.listeners, *self.sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection((self.there, port))
                self.sockets += [client, server]
                for ends in ((client, server, 0), (server, client, port)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket, port: int) -> None:
        """port is 0 for what the client says: that arrives as it was sent."""
        done = 0
        with contextlib.suppress(OSError):
            while data := bytearray(source.recv(65536)):
                at = self.flip[1] - done
                if port and port == self.flip[0] and 0 <= at < len(data):
                    data[at] ^= 0x10
                at = self.cut[1] - done
                if port and port == self.cut[0] and 0 <= at < len(data):
                    to.sendall(data[:at])
                    break
                to.sendall(data)
                done += len(data)
        for one in (source, to):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
