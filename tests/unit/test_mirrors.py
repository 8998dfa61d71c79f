"""The way out that a guest is lent leads to package mirrors, and to nothing else of its host."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.others import as_other
from tests.unit.uml import REPOSITORY, until
from umlaan.agent import mirrors, outward


class Archive(http.server.BaseHTTPRequestHandler):
    """A mirror: a file, a redirect to a place of the asker's choosing, what it was asked."""

    asked: list[tuple[str, dict[str, str]]] = []

    def do_GET(self) -> None:
        Archive.asked.append((self.requestline, dict(self.headers)))
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"packages" * 50_000)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def archive() -> Iterator[int]:
    """Its port on loopback."""
    Archive.asked.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Archive) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def secret() -> Iterator[int]:
    """A service of the host's own, for nobody else."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Archive) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def ask(archive: int) -> Iterator[Any]:
    """One request through the proxy: what came back, head and body."""
    way = mirrors.Ways(frozenset({("127.0.0.1", archive)}), frozenset({("deb.debian.org", 80)}))
    folder = tempfile.mkdtemp()
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{folder}/door")
    door.listen()
    threading.Thread(target=mirrors.serve, args=(door, way), daemon=True).start()

    def asked(request: str, more: bytes = b"") -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(20)
            link.connect(f"{folder}/door")
            link.sendall(request.encode("latin-1") + more)
            data = b""
            try:
                while part := link.recv(65536):
                    data += part
            except ConnectionResetError:
                pass
        return data.decode("latin-1")

    yield asked
    door.close()


def get(url: str, method: str = "GET") -> str:
    return f"{method} {url} HTTP/1.1\r\nHost: x\r\nProxy-Connection: keep-alive\r\n\r\n"


def test_a_mirror_that_is_named_is_reached_on_loopback_too(ask: Any, archive: int) -> None:
    url = f"http://127.0.0.1:{archive}/debian/dists?x=1"
    found = ask(get(url), get(url).encode())
    assert found.startswith("HTTP/1.0 200 OK\r\n") and found.endswith("packages")
    assert len(found) > 400_000
    line, headers = Archive.asked[0]
    assert line == "GET /debian/dists?x=1 HTTP/1.1"
    assert headers["Host"] == f"127.0.0.1:{archive}" and headers["Connection"] == "close"
    assert len(Archive.asked) == 1, "what a client sent ahead is asked again by it"


def test_nothing_else_of_the_host_is(ask: Any, archive: int, secret: int) -> None:
    for target in (
        f"http://127.0.0.1:{secret}/",
        f"http://localhost:{secret}/",
        f"http://localhost:{archive}/",
        f"http://[::1]:{secret}/",
        f"http://127.1:{secret}/",
        f"http://0:{secret}/",
        f"http://127.0.0.1:{archive}@localhost:{secret}/",
        f"http://user@127.0.0.1:{secret}/",
        "http://169.254.169.254/latest",
        "http://192.168.1.1/",
        "http://example.org/",
        "http://deb.debian.org:22/",
    ):
        assert ask(get(target)).startswith("HTTP/1.1 403 umlaan: "), target
    for target in (f"127.0.0.1:{secret}", "localhost:22", "[::1]:22", "10.0.0.1:443"):
        assert ask(get(target, "CONNECT")).startswith("HTTP/1.1 403 umlaan: "), target
    assert not Archive.asked


def test_a_redirect_leads_nowhere_by_itself(ask: Any, archive: int, secret: int) -> None:
    inside = f"http://127.0.0.1:{secret}/"
    found = ask(get(f"http://127.0.0.1:{archive}/to?{inside}"))
    assert "302" in found.splitlines()[0] and f"Location: {inside}" in found
    assert len(Archive.asked) == 1
    assert ask(get(inside)).startswith("HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.1.1", "::1", "fe80::1", "::"]
)
def test_a_public_name_that_means_this_network_is_refused(
    ask: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    row = (family, socket.SOCK_STREAM, 6, "", (address, 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [row])
    found = ask(get("http://deb.debian.org/debian"))
    assert found.startswith("HTTP/1.1 403 umlaan: deb.debian.org has no public address here")


def test_a_tunnel_carries_bytes_both_ways(ask: Any, archive: int) -> None:
    found = ask(get(f"127.0.0.1:{archive}", "CONNECT"), b"GET /deb HTTP/1.0\r\n\r\n")
    assert found.startswith("HTTP/1.1 200 OK\r\n\r\nHTTP/1.0 200 OK\r\n")
    assert found.endswith("packages")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET http://127.0.0.1:x/ HTTP/1.1\r\n\r\n", 400),
        ("GET http://[/ HTTP/1.1\r\n\r\n", 400),
        ("GET ftp://deb.debian.org/ HTTP/1.1\r\n\r\n", 400),
        ("POST http://deb.debian.org/ HTTP/1.1\r\n\r\n", 405),
        ("CONNECT deb.debian.org HTTP/1.1\r\n\r\n", 400),
        ("CONNECT :80 HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET http://deb.debian.org/ HTTP/1.1\r\nX: a\nHost: b\r\n\r\n", 400),
        ("GET http://deb.debian.org/" + "x" * 70_000 + " HTTP/1.1\r\n", 431),
    ],
)
def test_bad_requests_are_answered(ask: Any, request_: str, status: int) -> None:
    assert ask(request_).startswith(f"HTTP/1.1 {status} umlaan: ")


def test_who_says_nothing_is_not_waited_for(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "HEAD_S", 0.2)
    assert ask("GET http://deb").startswith("HTTP/1.1 408 umlaan: ")


def test_another_proxy_is_asked_only_for_mirrors(archive: int) -> None:
    """A lab host that has no other way out itself."""
    way = mirrors.Ways(frozenset({("deb.debian.org", 80)}), frozenset(), ("127.0.0.1", archive))
    assert mirrors.addresses(("deb.debian.org", 80), way) == [("127.0.0.1", archive)]
    with pytest.raises(mirrors.Refused):
        mirrors.addresses(("example.org", 80), way)
    place, head = mirrors._forwarded("GET", "http://deb.debian.org/x", [], way)
    assert place == ("deb.debian.org", 80)
    assert head.startswith(b"GET http://deb.debian.org/x HTTP/1.1\r\nHost: deb.debian.org\r\n")
    assert mirrors._tunnel("deb.debian.org:443", way)[1].startswith(b"CONNECT deb.debian.org:443 ")


def test_sources_of_either_form_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.list").write_text(
        "# deb http://commented.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/x] http://Mirror.Example:3142/debian bookworm main # http://no\n"
        "deb-src https://src.example/debian bookworm main\n"
        "deb cdrom:[Debian]/ bookworm main\ndeb file:/srv/debian bookworm main\n"
    )
    (tmp_path / "b.sources").write_text(
        "Types: deb\n# http://old.example/\nURIs: http://one.example/debian https://two.example./d\n"
        " http://three.example:8080/\nSuites: bookworm\n"
    )
    monkeypatch.setattr(mirrors, "_SOURCES", (f"{tmp_path}/*.list",))
    monkeypatch.setattr(mirrors, "_DEB822", f"{tmp_path}/*.sources")
    found = mirrors.ways(["http://10.9.8.7:1234/debian", "file:/x"])
    assert found.named == {
        ("mirror.example", 3142),
        ("src.example", 443),
        ("one.example", 80),
        ("two.example", 443),
        ("three.example", 8080),
        ("10.9.8.7", 1234),
    }
    assert ("deb.debian.org", 80) in found.public and ("no", 80) not in found.named


@pytest.mark.skipif(os.geteuid() != 0, reason="makes its door below /run")
def test_the_door_is_roots_and_goes_with_ssh() -> None:
    code = (
        "import os; from umlaan.agent import mirrors, outward\n"
        "print(outward.open_door(mirrors.ways()), flush=True)\n"
        "os.execvp('sleep', ['sleep', '600'])"
    )
    ssh = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ssh.stdout is not None
    door = Path(ssh.stdout.readline().strip())
    try:
        assert stat.S_IMODE(door.parent.stat().st_mode) == 0o700

        def knock() -> None:
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(str(door))

        knock()
        assert "PermissionError" in as_other(knock)
        assert not outward._sweep(str(door.parent)) and door.exists(), "it is in use"
    finally:
        ssh.send_signal(signal.SIGKILL)
        ssh.wait()
    until(lambda: not door.parent.exists())
    # Nothing holds the output of what became ssh any more.
    assert ssh.stdout.read() == ""
