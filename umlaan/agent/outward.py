"""``outward NAMESPACE|- [URL…] ssh … root@GUEST COMMAND``: a command in a guest that fetches.

A guest has no way out unless its network has a gateway. For as long as the command runs, ssh lends
it one to the package mirrors, and nowhere else: a port on the guest's loopback that leads to a
proxy of this host (umlaan.agent.mirrors), named to the command in http_proxy and https_proxy. URLs
are mirrors of the data. ssh itself stays outside the lab's namespace; the connection to the guest
is made inside it and handed over.
"""

from __future__ import annotations

import contextlib
import glob
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from urllib.parse import urlsplit

from umlaan.agent import itself, mirrors, proc
from umlaan.agent.files import run_folder


def host_proxy() -> tuple[str, int] | None:
    """The HTTP proxy that this lab host itself needs, from the environment or from apt."""
    for name in ("http_proxy", "HTTP_PROXY"):
        if found := _host_port(os.environ.get(name, "")):
            return found
    try:
        done = subprocess.run(
            ["apt-config", "dump", "Acquire::http::Proxy"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    match = re.search(r'^Acquire::http::Proxy "([^"]+)"', done.stdout, re.MULTILINE)
    return _host_port(match.group(1)) if match else None


def _host_port(url: str) -> tuple[str, int] | None:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return None
    return parts.hostname, parts.port or 80


def options(namespace: str | None, port: int, door: str) -> list[str]:
    """What ssh is told before its other options: the first value of each counts."""
    words = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
    words += ["-o", "ExitOnForwardFailure=yes", "-R", f"127.0.0.1:{port}:{door}"]
    if namespace is not None:
        connect = shlex.join(itself("connect", namespace))
        words += ["-o", f"ProxyCommand={connect} %h %p", "-o", "ProxyUseFdpass=yes"]
    return words


def exports(port: int) -> str:
    """The shell words that tell the command of the proxy."""
    url = f"http://127.0.0.1:{port}"
    return f"export http_proxy={url} https_proxy={url}; "


def open_door(way: mirrors.Ways) -> str:
    """A proxy behind a socket that only root can reach, as long as this process lives; its path."""
    for left in glob.glob(f"{run_folder()}/outward-*"):
        _sweep(left)
    folder = tempfile.mkdtemp(prefix="outward-", dir=run_folder())
    path = f"{folder}/door"
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    door.bind(path)
    door.listen(64)
    parent = os.getpid()
    if os.fork() == 0:
        try:
            _attend(door, way, folder, parent)
        finally:
            os._exit(0)
    door.close()
    return path


def _attend(door: socket.socket, way: mirrors.Ways, folder: str, parent: int) -> None:
    """The proxy's own process: it ends with the ssh that its parent becomes."""

    def end(*_: object) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    # The terminal's signals are for the command.
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        # Who waits for the end of ssh's output would wait for this.
        os.dup2(null, number)
    proc.die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        end()
    mirrors.serve(door, way)


def _sweep(folder: str) -> None:
    """What a killed one left: nobody listens behind its door any more."""
    with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(FileNotFoundError):
        try:
            link.connect(f"{folder}/door")
        except ConnectionRefusedError:
            shutil.rmtree(folder, ignore_errors=True)


def main(argv: list[str]) -> int:
    """The ``outward`` verb: becomes ssh."""
    namespace, *rest = argv
    urls = rest[: rest.index("ssh")]
    program, *words = rest[len(urls) :]
    port = random.randint(20000, 60000)
    door = open_door(mirrors.ways(urls, host_proxy()))
    extra = options(None if namespace == "-" else namespace, port, door)
    os.execvp(program, [program, *extra, *words[:-1], exports(port) + words[-1]])
