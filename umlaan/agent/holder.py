"""Holds a guest's console: keeps the pty, writes the log, lets people attach, records the end.

It lives in a session of its own beside the UML that it started, outlives whoever asked for it, and
ends with the UML. Only SIGKILL ends it before: then the guest runs on without a console.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import socket
import subprocess
import time
from typing import Any

from umlaan.agent import atboot, cgroup, node, proc, reach
from umlaan.agent.files import write_json

LOG_MAX = 4 << 20
_CLIENT_MAX = 1 << 20


class ConsoleLog:
    """console.log, turned over to console.log.1 at a size; a full disk loses lines, no more."""

    def __init__(self, path: str, limit: int = LOG_MAX) -> None:
        self.path = path
        self.limit = limit
        self.lost = 0
        self.descriptor = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.path, flags, 0o640)

    def write(self, data: bytes) -> None:
        """Append; what does not fit is counted and told once there is room again."""
        try:
            if self.lost:
                told = f"\r\n[umlaan: {self.lost} bytes of console lost, log not writable]\r\n"
                os.write(self.descriptor, told.encode())
                self.lost = 0
            written = os.write(self.descriptor, data)
            self.lost += len(data) - written
            if os.fstat(self.descriptor).st_size >= self.limit:
                self.turn()
        except OSError:
            self.lost += len(data)

    def keep(self) -> None:
        """To the disk: the machine may be going down, and how its guests ended is read after."""
        with contextlib.suppress(OSError):
            os.fsync(self.descriptor)

    def turn(self) -> None:
        """Begin a new file; the one before stays as .1. OSError leaves the old one open."""
        os.rename(self.path, f"{self.path}.1")
        fresh = self._open()
        os.close(self.descriptor)
        self.descriptor = fresh


class Console:
    """The pty's master, the people attached to it, and the log."""

    def __init__(self, master: int, directory: str, log: ConsoleLog) -> None:
        self.master = master
        self.log = log
        self.taken = 0
        self.clients: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        os.set_blocking(master, False)
        self.selector.register(master, selectors.EVENT_READ, "master")
        self.door = _listen(directory)
        self.selector.register(self.door, selectors.EVENT_READ, "door")

    def turn(self, timeout: float) -> None:
        """Pass on what came in, wait at most timeout seconds for it."""
        for key, _ in self.selector.select(timeout):
            if key.data == "master":
                self.from_guest()
            elif key.data == "door":
                self.greet()
            elif key.fd in self.clients:
                self.from_client(self.clients[key.fd])

    def from_guest(self) -> bool:
        """Copy the guest's output to the log and to everyone attached; False at its end."""
        try:
            data = os.read(self.master, 65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            with contextlib.suppress(KeyError):
                self.selector.unregister(self.master)
            return False
        self.taken += len(data)
        self.log.write(data)
        for client in list(self.clients.values()):
            try:
                client.sendall(data)
            except OSError:
                # Too slow or gone: the guest's console must not wait for a person.
                self.drop(client)
        return True

    def drain(self) -> None:
        """Copy what the guest wrote before it ended."""
        for _ in range(256):
            before = self.taken
            if not self.from_guest() or self.taken == before:
                return

    def greet(self) -> None:
        """Someone attaches."""
        with contextlib.suppress(OSError):
            client, _ = self.door.accept()
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CLIENT_MAX)
            self.clients[client.fileno()] = client
            self.selector.register(client, selectors.EVENT_READ, "client")

    def from_client(self, client: socket.socket) -> None:
        """Copy what a person typed to the guest."""
        try:
            data = client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(client)
            return
        # A guest that does not read loses keys, as a real terminal does.
        with contextlib.suppress(OSError):
            os.write(self.master, data)

    def drop(self, client: socket.socket) -> None:
        """Someone detaches."""
        self.clients.pop(client.fileno(), None)
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(client)
        client.close()


def _listen(directory: str) -> socket.socket:
    """The socket to attach to, console.sock in the node's folder (the current directory)."""
    os.chdir(directory)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("console.sock")
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    door.bind("console.sock")
    os.chmod("console.sock", 0o600)
    door.listen(8)
    door.setblocking(False)
    return door


def memory_folder(order: dict[str, Any]) -> str | None:
    """The node's own folder for its memory file below node.tmpdir; None where it has none."""
    if not order.get("tmpdir") or order.get("user") in (None, "root"):
        return None
    return f"{order['tmpdir']}/{order['user']}-{order['name']}"


def hold(order: dict[str, Any], record: dict[str, Any], lock: int, ready: int) -> None:
    """Start the UML, tell `ready` its pid (or the fault), serve its console until it ends."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    wakeup, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    directory = order["dir"]
    # Where systemd is, the node has a scope of its own, and the bounds are that scope's.
    groups = [] if os.path.isdir(atboot.SYSTEMD) else cgroup.make(order)
    master, slave = os.openpty()
    try:
        console = Console(master, directory, ConsoleLog(f"{directory}/console.log"))
        console.log.write(f"\r\n[umlaan: {time.strftime('%F %T')} {order['name']}]\r\n".encode())
        console.selector.register(wakeup, selectors.EVENT_READ, "child")
        child = subprocess.Popen(
            [*order["prefix"], *order["argv"]],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=directory,
            start_new_session=True,
            pass_fds=[lock],
            restore_signals=True,
            preexec_fn=functools.partial(_prepare, groups),
            env=order["environment"],
        )
        os.close(slave)
        record.update(group=child.pid, pid=None, start=None, exit=None, started_at=time.time())
        record["holder"] = {"pid": os.getpid(), "start": proc.process(os.getpid()).start}  # type: ignore[union-attr]
        with contextlib.suppress(OSError):
            write_json(f"{directory}/launch.json", record)
    except OSError as error:
        _tell(ready, f"fault {error}")
        return
    code = _until_started(console, child, order["argv"], record)
    if record["pid"] is not None:
        with contextlib.suppress(OSError):
            # Unwritten it is found by its command line; its console needs its holder all the same.
            write_json(f"{directory}/launch.json", record)
        _tell(ready, f"pid {record['pid']}")
    while code is None:
        console.turn(60.0)
        with contextlib.suppress(BlockingIOError):
            os.read(wakeup, 512)
        code = child.poll()
    _end(order, record, console, child.pid, code)
    _tell(ready, f"exit {code}")


def _prepare(groups: list[str]) -> None:
    cgroup.join(groups)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _tell(ready: int, text: str) -> None:
    # Whoever asked may be gone, or has its answer already.
    with contextlib.suppress(OSError):
        os.write(ready, text.encode())
        os.close(ready)


def _until_started(
    console: Console, child: subprocess.Popen[bytes], argv: list[str], record: dict[str, Any]
) -> int | None:
    """Wait for ip and nsenter to have become, or started, the UML; its exit code if it ended."""
    while True:
        code = child.poll()
        if code is not None:
            return code
        for pid in (child.pid, *proc.children(child.pid)):
            found = proc.process(pid)
            if found is not None and proc.cmdline(pid) == argv:
                record.update(pid=pid, start=found.start, groups=cgroup.of(pid))
                return None
        console.turn(0.01)


def _end(
    order: dict[str, Any], record: dict[str, Any], console: Console, group: int, code: int
) -> None:
    """The UML has ended: end what it left behind, drain the console, record how it went."""
    for leader in {group, record["pid"] or group}:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
    for member in node.members(order):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGKILL)
    cgroup.leave(order)
    if folder := memory_folder(order):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    reach.end_shared(order["dir"])
    console.drain()
    text = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    console.log.write(f"\r\n[umlaan: {time.strftime('%F %T')} {text}]\r\n".encode())
    console.log.keep()
    record["exit"] = {"code": code, "at": time.time()}
    with contextlib.suppress(OSError):
        write_json(f"{order['dir']}/launch.json", record)
    with contextlib.suppress(OSError):
        os.unlink(f"{order['dir']}/console.sock")
    for client in list(console.clients.values()):
        console.drop(client)
