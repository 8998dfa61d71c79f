"""An HTTP proxy that leads to package mirrors and nowhere else: the way out that a guest is lent.

Whoever is root in the guest may ask it for anything. It goes to the hosts and ports of this lab
host's own apt sources, of the data, and of Debian itself; no name of a guest's choosing is looked
up, and a redirect is only an answer, which the guest has to ask for again.
"""

from __future__ import annotations

import contextlib
import glob
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

HEAD_MAX = 64 << 10
HEAD_S = 60.0
QUIET_S = 300.0
CONNECT_S = 30.0
_PORTS = {"http": 80, "https": 443}
_PUBLIC = ("deb.debian.org", "security.debian.org", "archive.debian.org")
_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list")
_DEB822 = "/etc/apt/sources.list.d/*.sources"
# What belongs to one connection, not to the request.
_HOP = {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"}
_HOP |= {"host", "trailer", "transfer-encoding", "content-length"}

Place = tuple[str, int]


class Refused(Exception):
    """An HTTP status and its reason, for who asked."""


class Ways(NamedTuple):
    """Where the proxy may lead: mirrors that somebody here has named, and public ones."""

    named: frozenset[Place]
    public: frozenset[Place]
    upstream: Place | None = None


def place_of(url: str) -> Place | None:
    """(host, port) of a http or https URL; None of any other."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return parts.hostname.rstrip(".").lower(), port or _PORTS[parts.scheme]


def urls_in(text: str) -> list[str]:
    """The http URLs of an apt source file, of either form; comments do not count."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    return [url for line in lines for url in re.findall(r"(?<!\S)https?://\S+", line)]


def ways(urls: Iterable[str] = (), upstream: Place | None = None) -> Ways:
    """The mirrors of this machine's own apt sources, those of urls, and Debian's."""
    found = list(urls)
    for pattern in (*_SOURCES, _DEB822):
        for path in sorted(glob.glob(pattern)):
            with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as f:
                found += urls_in(f.read())
    named = frozenset(place for place in map(place_of, found) if place)
    public = frozenset((host, port) for host in _PUBLIC for port in _PORTS.values())
    return Ways(named, public - named, upstream)


def addresses(place: Place, way: Ways) -> list[tuple[str, int]]:
    """Where a place really is. Refused where it is no mirror, or a public one is not public here.

    A mirror that somebody here has named may be anywhere, on this very machine too.
    """
    host, port = place
    if place not in way.named and place not in way.public:
        raise Refused(403, f"{host}:{port} is no mirror of this lab host's apt sources")
    if way.upstream:
        return [way.upstream]
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(502, f"{host}: {error.strerror or error}") from None
    found = [(str(row[4][0]), port) for row in rows]
    if place in way.public:
        found = [row for row in found if ipaddress.ip_address(row[0].partition("%")[0]).is_global]
    if not found:
        raise Refused(403, f"{host} has no public address here")
    return found


def _connected(place: Place, way: Ways) -> socket.socket:
    failed = ""
    for address in addresses(place, way):
        try:
            return socket.create_connection(address, timeout=CONNECT_S)
        except OSError as error:
            failed = error.strerror or str(error)
    raise Refused(502, f"{place[0]}:{place[1]}: {failed}")


def _head(link: socket.socket) -> tuple[bytes, bytes]:
    """All up to the empty line, and what came behind it; at most HEAD_MAX, within HEAD_S."""
    data, deadline = b"", time.monotonic() + HEAD_S
    while b"\r\n\r\n" not in data:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Refused(408, "the request did not come")
        link.settimeout(left)
        try:
            part = link.recv(4096)
        except TimeoutError:
            continue
        if not part:
            raise ConnectionError("it went away")
        data += part
        if len(data) > HEAD_MAX:
            raise Refused(431, "the request's head is too long")
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _asked(head: bytes) -> tuple[str, str, list[str]]:
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    odd = any(ord(sign) < 0x20 and sign != "\t" for line in lines for sign in line)
    if odd or len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refused(400, "this is no request of a proxy")
    return words[0], words[1], lines[1:]


def _forwarded(method: str, target: str, rows: list[str], way: Ways) -> tuple[Place, bytes]:
    """The place of a plain request, and the head that goes there."""
    place = place_of(target)
    if place is None or not target.startswith("http://"):
        raise Refused(400, "this is no request of a proxy")
    parts = urlsplit(target)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = [row for row in rows if row.partition(":")[0].strip().lower() not in _HOP]
    host = parts.netloc.rpartition("@")[2]
    line = f"{method} {target if way.upstream else path} HTTP/1.1"
    text = "\r\n".join([line, f"Host: {host}", *kept, "Connection: close"])
    return place, f"{text}\r\n\r\n".encode("latin-1")


def _tunnel(target: str, way: Ways) -> tuple[Place, bytes]:
    """The place of a CONNECT, and what an upstream proxy is asked first."""
    place = place_of(f"https://{target}")
    if place is None or target.rpartition(":")[2] != str(place[1]):
        raise Refused(400, "CONNECT names no host and port")
    ask = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n" if way.upstream else ""
    return place, ask.encode("latin-1")


def answer(link: socket.socket, way: Ways) -> None:
    """One request of a guest's, to its end."""
    with link:
        try:
            begin, rest = _head(link)
            method, target, rows = _asked(begin)
            if method == "CONNECT":
                place, head = _tunnel(target, way)
            elif method in ("GET", "HEAD"):
                place, head = _forwarded(method, target, rows, way)
            else:
                raise Refused(405, "only GET, HEAD and CONNECT are passed on")
            with _connected(place, way) as far:
                far.sendall(head)
                if method != "CONNECT":
                    _copy(far, link)
                    return
                if not head:
                    link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                far.sendall(rest)
                back = threading.Thread(target=_copy, args=(link, far), daemon=True)
                back.start()
                _copy(far, link)
                back.join(QUIET_S)
        except Refused as refused:
            status, reason = refused.args
            text = f"umlaan: {reason}"
            with contextlib.suppress(OSError):
                link.sendall(
                    f"HTTP/1.1 {status} {text}\r\nConnection: close\r\nContent-Type: text/plain\r\n"
                    f"Content-Length: {len(text) + 1}\r\n\r\n{text}\n".encode("latin-1", "replace")
                )
        except OSError:
            # Either side went away: there is nobody to tell.
            return


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends, or nothing moves for QUIET_S."""
    source.settimeout(QUIET_S)
    target.settimeout(QUIET_S)
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def serve(door: socket.socket, way: Ways, most: int = 64) -> None:
    """Answer everybody who comes to a listening socket, for ever; at most so many at a time."""
    room = threading.BoundedSemaphore(most)

    def one(link: socket.socket) -> None:
        try:
            answer(link, way)
        finally:
            room.release()

    while True:
        room.acquire()
        try:
            link, _ = door.accept()
        except OSError:
            room.release()
            return
        threading.Thread(target=one, args=(link,), daemon=True).start()
