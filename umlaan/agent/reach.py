"""Reaching a guest's sshd inside the lab's network namespace.

``connect NAMESPACE|- HOST PORT`` hands a connected socket to ssh (ProxyUseFdpass), so that ssh runs
outside the namespace and no relay stands between. answering() and banner() only look.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import subprocess
import sys
import time
from typing import Any

from umlaan.agent import proc

SSH_PORT = 22


class Greeting:
    """Waits for one sshd's greeting over one connection at a time.

    A connection that stands is kept: a slow guest forks an sshd for each, and who knocks twice a
    second keeps it from ever answering.
    """

    PATIENCE_S = 120.0

    def __init__(self, address: str) -> None:
        self.address = address
        self.link: socket.socket | None = None
        self.since = 0.0
        # What the port did at the last look: a guest on its way goes from one to the next.
        self.state = "nothing"

    def look(self, seconds: float) -> bool:
        """True if it greets within seconds; else ask again."""
        if self.link is None:
            self.since = time.monotonic()
            self.link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self.link.setblocking(False)
            if self.link.connect_ex((self.address, SSH_PORT)) not in (0, errno.EINPROGRESS):
                self.close()
                return False
        ready, _, _ = select.select([self.link], [], [], seconds)
        stands = self._stands()
        self.state = "connected" if stands else "refused" if ready else "silent"
        if not ready and stands and time.monotonic() - self.since < self.PATIENCE_S:
            return False
        try:
            greeted = bool(ready) and self.link.recv(16).startswith(b"SSH-")
        except OSError:
            greeted = False
        self.close()
        return greeted

    def _stands(self) -> bool:
        assert self.link is not None
        try:
            self.link.getpeername()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the connection up."""
        if self.link is not None:
            self.link.close()
            self.link = None


def _greeted(addresses: list[str], timeout: float) -> dict[str, bool]:
    """Ask all at once; only a greeting counts, a mere connection does not."""
    answers = dict.fromkeys(addresses, False)
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for address in addresses:
            link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            link.setblocking(False)
            if link.connect_ex((address, SSH_PORT)) in (0, errno.EINPROGRESS):
                selector.register(link, selectors.EVENT_READ, address)
            else:
                link.close()
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                link = key.fileobj  # type: ignore[assignment]
                try:
                    answers[key.data] = link.recv(16).startswith(b"SSH-")
                except OSError:
                    answers[key.data] = False
                selector.unregister(link)
                link.close()
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
    return answers


def answering(nodes: list[dict[str, Any]], timeout: float) -> dict[str, bool]:
    """{name: whether its sshd answers}, each in its own namespace."""
    # A new connection costs the guest's sshd a quarter of a second, a word on a shared one a fifth.
    out = dict.fromkeys(shared(nodes, timeout), True)
    rest = [n for n in nodes if n["name"] not in out]
    for namespace in {n.get("namespace") for n in rest}:
        some = {n["address"]: n["name"] for n in rest if n.get("namespace") == namespace}
        for address, answer in in_namespace(namespace, list(some), timeout).items():
            out[some[address]] = answer
    return out


def shared(nodes: list[dict[str, Any]], timeout: float) -> list[str]:
    """Names of those that run a command over the ssh connection that is open already."""
    asked = {}
    for node in nodes:
        if os.path.exists(f"{node['dir']}/ssh"):
            # Without the open connection it fails at once instead of making one.
            words = ["ssh", "-F", "none", "-S", f"{node['dir']}/ssh", "-o", "BatchMode=yes"]
            asked[node["name"]] = subprocess.Popen(
                [*words, "-o", "ControlMaster=no", "-o", "ProxyCommand=false", "guest", ":"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    deadline = time.monotonic() + timeout
    good = []
    for name, process in asked.items():
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code == 0:
            good.append(name)
    return good


def in_namespace(namespace: str | None, addresses: list[str], timeout: float) -> dict[str, bool]:
    """Like _greeted, by a child inside the namespace: this process stays where it is."""
    if namespace is None:
        return _greeted(addresses, timeout)

    def greeted() -> str:
        return " ".join(a for a, yes in _greeted(addresses, timeout).items() if yes)

    try:
        good = proc.ask_inside(namespace, greeted).split()
    except FileNotFoundError:
        # Nobody is reached in one that is gone: the network's stage makes it again. Any other
        # error is no answer of a node's; who took it for one would restart nodes that are well.
        good = []
    return {address: address in good for address in addresses}


def end_shared(directory: str) -> None:
    """End the shared ssh connection to a guest that is gone or about to be made anew."""
    path = f"{directory}/ssh"
    if not os.path.exists(path):
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["ssh", "-F", "none", "-S", path, "-O", "exit", "guest"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=3,
            check=False,
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def main(argv: list[str]) -> int:
    """The ``connect`` verb: ssh's ProxyCommand."""
    namespace, host, port = argv
    try:
        proc.enter_network(None if namespace == "-" else namespace)
        link = socket.create_connection((host, int(port)), timeout=10)
    except OSError as error:
        print(f"{host} port {port} in namespace {namespace}: {error}", file=sys.stderr)
        return 1
    link.settimeout(None)
    with socket.socket(fileno=os.dup(1)) as ssh:
        socket.send_fds(ssh, [b"\0"], [link.fileno()])
    return 0
