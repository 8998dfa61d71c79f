"""``node-start JSON``: start one node's UML under a holder, and return as soon as it runs.

The order: {name, dir, umid, root, argv, kernel_sha256, namespace, dc_file, tmpdir, mem, lab, user,
hostfs, hostfs_writable}. Exit code 0 with one line that says the pid; 75 where the root or the
node is in use, 1 for what else is wrong. Nothing is started twice: the node's launch lock and the
root's lock are held while it is decided, and the root's lock as long as the guest lives. The order
is noted for the next boot. Unless its user is root, the UML runs in a sandbox (sandbox_node).
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import stat
import sys
from typing import Any

from umlaan.agent import (
    atboot,
    bounded,
    holder,
    itself,
    node,
    proc,
    reach,
    rootlock,
    sweep,
    tap,
)
from umlaan.agent.atomic import remove_tree
from umlaan.agent.files import locked, make_folder, write_json
from umlaan.agent.visible import visible, word

BUSY = 75
# Its end closes the pipe: one that lives is waited for, however late it comes to its turn.
_READY_S = 120.0


class CannotStart(Exception):
    """Why a node was not started; the message is for its user."""


def check_tmpdir(tmpdir: str, memory: int) -> None:
    """UML's memory file needs an executable directory with room. CannotStart with the remedy."""
    try:
        info = os.statvfs(tmpdir)
    except OSError as error:
        raise CannotStart(f"{tmpdir}: {error.strerror}; it holds the guest's memory") from None
    if info.f_flag & os.ST_NOEXEC:
        raise CannotStart(
            f"{tmpdir} is mounted noexec, UML's memory must be executable; "
            f"mount -o remount,exec {tmpdir}, or set node.tmpdir"
        )
    free = info.f_bavail * info.f_frsize
    if free < memory:
        raise CannotStart(
            f"{tmpdir} has {free >> 20} MiB free and mem= wants {memory >> 20} MiB: it would die "
            f"of SIGBUS once that is used; lower node.mem, or enlarge {tmpdir}"
        )


def prefix(order: dict[str, Any]) -> tuple[list[str], dict[str, Any] | None]:
    """What stands before the kernel, and the DC: the lab's namespace, the DC's PID namespace."""
    words: list[str] = []
    namespace = order.get("namespace")
    if namespace:
        if not os.path.exists(f"/run/netns/{namespace}"):
            raise CannotStart(
                f"network namespace {namespace} is not there; the network stage makes it"
            )
        words += ["ip", "netns", "exec", namespace]
    dc = node.dc_state(order.get("dc_file"))
    if dc is not None:
        if dc["fault"]:
            raise CannotStart(f"no DC to start in: {order['dc_file']}: {dc['fault']}")
        words += ["nsenter", "-p", "-t", str(dc["pid"])]
    return words, dc


def account(order: dict[str, Any]) -> pwd.struct_passwd:
    """The user that a UML runs as. CannotStart if this machine does not have it."""
    name = order.get("user") or "root"
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise CannotStart(f"there is no user {name}; the network stage makes the lab's") from None


def own(path: str, user: pwd.struct_passwd, mode: int) -> None:
    """Make a file or folder of umlaan's the UML's user's alone, no link followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, user.pw_uid, user.pw_gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def hand_over(order: dict[str, Any], user: pwd.struct_passwd) -> None:
    """Give the UML's user what is the node's own, and only that."""
    directory, root = order["dir"], order["root"]
    os.makedirs(f"{directory}/uml", exist_ok=True)
    own(f"{directory}/uml", user, 0o700)
    if os.path.dirname(root) == directory and stat.S_ISREG(os.lstat(root).st_mode):
        own(root, user, 0o600)
    kernel = os.stat(order["argv"][0])
    if user.pw_uid != 0 and kernel.st_mode & 0o555 != 0o555 and kernel.st_uid == 0:
        # Built under a narrow umask; in its folder nobody else comes near it.
        os.chmod(order["argv"][0], stat.S_IMODE(kernel.st_mode) | 0o555)
    if mine := holder.memory_folder(order):
        with contextlib.suppress(FileExistsError):
            os.mkdir(mine, 0o700)
        if os.lstat(mine).st_uid not in (0, user.pw_uid):
            raise CannotStart(f"{mine} is somebody else's; it is to hold the guest's memory")
        own(mine, user, 0o700)


def sandbox(order: dict[str, Any], user: pwd.struct_passwd) -> list[str]:
    """What stands last before the kernel: the sandbox; nothing where it runs as root."""
    if user.pw_uid == 0:
        return []
    spec = {
        "user": user.pw_name,
        "dir": order["dir"],
        "uml_dir": f"{order['dir']}/uml",
        "tmpdir": order.get("tmpdir"),
        "memory": holder.memory_folder(order),
        "mem": int(order.get("mem") or 0),
        "hostfs": order.get("hostfs"),
        "hostfs_writable": bool(order.get("hostfs_writable")),
    }
    return [*itself("node-sandbox", json.dumps(spec, sort_keys=True)), "--"]


def start(order: dict[str, Any]) -> str:
    """Start it; the line for the user. CannotStart or RootBusy say why not."""
    name, directory = order["name"], order["dir"]
    user = account(order)
    # Root image, console, sockets, memory of the guest: nobody's but root's.
    make_folder(directory, 0o700)
    row = node.state(order)
    if row["running"]:
        raise rootlock.RootBusy(f"it is up already (pid {row['pid']})")
    if not os.access(order["argv"][0], os.X_OK):
        raise CannotStart(f"kernel {order['argv'][0]} is not there or not executable")
    if not row["root_exists"]:
        raise CannotStart(f"root {order['root']} is not there")
    words, dc = prefix(order)
    tmpdir = order.get("tmpdir") or "/dev/shm"
    check_tmpdir(tmpdir, int(order.get("mem") or 0))
    swept = sweep.clear(order)
    if fault := tap.prepare(order.get("namespace"), order["argv"], user.pw_uid):
        raise CannotStart(fault)
    lock = rootlock.take(order["root"], node.lock_name(order), wait=10.0)
    try:
        rootlock.wait_free(order["root"], 5.0)
        # A stale pid file with a recycled pid would make UML take a random umid, and so would what
        # a guest has put there.
        if os.path.lexists(f"{directory}/uml"):
            remove_tree(f"{directory}/uml")
        hand_over(order, user)
        reach.end_shared(directory)
        words += sandbox(order, user)
        environment = _environment(tmpdir, user)
        pid = _spawn({**order, "prefix": words, "environment": environment}, dc, lock)
    finally:
        os.close(lock)
    swept_text = f", {swept} processes of its last run ended" if swept else ""
    return f"{name}: started, pid {pid}{swept_text}"


def _environment(tmpdir: str, user: pwd.struct_passwd) -> dict[str, str]:
    """Only what UML needs: a user's own variables are no part of a declared node."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/uml"
    words = {"PATH": path, "HOME": "/root", "TERM": "linux", "TMPDIR": tmpdir}
    # Where the sandbox finds this agent; it does not pass that on.
    return {**words, "PYTHONPATH": atboot.top()} if user.pw_uid else words


def _spawn(order: dict[str, Any], dc: dict[str, Any] | None, lock: int) -> int:
    """Put the holder into a session of its own; the UML's pid once it runs."""
    record = {
        "name": order["name"],
        "umid": order["umid"],
        "argv": order["argv"],
        "prefix": order["prefix"],
        "kernel_sha256": order.get("kernel_sha256"),
        "root": order["root"],
        "root_id": node.root_id(order["root"]),
        "namespace": order.get("namespace"),
        "user": order.get("user") or "root",
        "hostfs_writable": bool(order.get("hostfs_writable")),
        "dc": {"pid": dc["pid"], "start": dc["start"]} if dc else None,
        "boot_id": proc.boot_id(),
    }
    # Unwritable state must be told before anything runs.
    write_json(node.record_path(order["dir"]), {**record, "pid": None, "start": None})
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _let_go({lock, writer})
            code = 1
            try:
                holder.hold(order, record, lock, writer)
                code = 0
            finally:
                os._exit(code)
        os._exit(0)
    os.close(writer)
    answer = _read(reader, _READY_S)
    kind, _, rest = answer.partition(" ")
    if kind == "pid":
        return int(rest)
    log = f"{order['dir']}/console.log"
    said = {"exit": f"it ended at once (exit code {rest})", "fault": rest}.get(kind)
    tail = "\n".join(f"    {line}" for line in last_lines(log))
    raise CannotStart(f"{said or 'its holder did not report in time'}; {log} ends:\n{tail}")


def _let_go(keep: set[int]) -> None:
    """Close all that the caller waits on: its outputs, and locks that are not the holder's."""
    quiet = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _read(reader: int, wait: float) -> str:
    ready, _, _ = select.select([reader], [], [], wait)
    text = os.read(reader, 4096).decode(errors="replace") if ready else ""
    os.close(reader)
    return text


def last_lines(path: str, count: int = 15) -> list[str]:
    """The last lines of a console log, without the terminal's carriage returns."""
    try:
        text = visible(bounded.tail(path).replace(b"\r", b""))
    except OSError as error:
        return [f"(unreadable: {error.strerror})"]
    lines = [word(line) for line in text.split("\n") if line.strip()]
    # A panic says why before its long trace.
    panics = [line for line in lines[:-count] if "Kernel panic" in line]
    return [*panics[-1:], *lines[-count:]]


def main(argv: list[str]) -> int:
    """The ``node-start`` verb."""
    order = json.loads(argv[0])
    name = order["name"]
    if not atboot.scoped():
        code = atboot.in_scope(order, atboot.agent_words("node-start", order))
        if code is not None:
            return code
    try:
        with locked(f"{order['dir']}/launch.lock", f"start of {name}", wait=20.0):
            print(start(order))
            try:
                atboot.note(order)
            except OSError as error:
                # It runs all the same; the next run notes it.
                print(f"{name}: not noted for the next boot: {error}", file=sys.stderr)
    except (rootlock.RootBusy, TimeoutError) as error:
        print(f"{name}: not started: {error}", file=sys.stderr)
        return BUSY
    except (CannotStart, sweep.Unkillable, OSError) as error:
        print(f"{name}: not started: {error}", file=sys.stderr)
        return 1
    return 0
