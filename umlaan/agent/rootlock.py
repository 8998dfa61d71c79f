"""Who uses a node's root: one lock that launch and chroot both take, and what the kernel knows.

The lock is an flock on a file named by the root. A running UML inherits it, so that it is held
until the last process of the guest is gone, whatever killed the others.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct

from umlaan.agent.files import holder_of, name_holder, open_lock
from umlaan.agent.patience import Wait

LOCK_DIR = "/run/umlaan/lock"


class RootBusy(Exception):
    """The root is in use; the message says by whom."""


def lock_path(root: str) -> str:
    """The lock file of a root: by device number for a block device, else by its real path."""
    real = os.path.realpath(root)
    key = real
    try:
        info = os.stat(real)
        if stat.S_ISBLK(info.st_mode):
            key = f"block {os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    except OSError:
        pass
    return f"{LOCK_DIR}/root-{hashlib.sha256(key.encode()).hexdigest()[:20]}"


def take(root: str, holder: str, wait: float = 0.0) -> int:
    """Lock a root and return the descriptor that holds it.

    RootBusy once the same one has had it for wait seconds.
    """
    writer = open_lock(lock_path(root))
    # A UML inherits it: that may hold the lock, and not write who has it.
    descriptor = os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)
    waiting = Wait(wait, looks=0)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not waiting.goes_on(who := holder_of(descriptor)):
                os.close(descriptor)
                os.close(writer)
                raise RootBusy(f"root {root} is held by {who}") from None
            waiting.pause(most=0.05)
    name_holder(writer, holder)
    os.close(writer)
    return descriptor


def holder(root: str) -> str | None:
    """Who holds the lock of a root; None if nobody does."""
    try:
        descriptor = os.open(lock_path(root), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Shared: two that only look must not take each other for a holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder_of(descriptor)
    finally:
        os.close(descriptor)
    return None


def used_by(root: str) -> str | None:
    """Who uses a root beside our lock: a mount, a loop device, another's UML. None if free."""
    try:
        info = os.stat(root)
    except OSError:
        return None
    if stat.S_ISBLK(info.st_mode):
        return _mounted(info.st_rdev) or _exclusive(root) or _posix_lock(root)
    return _loop(os.path.realpath(root)) or _posix_lock(root)


def _mounted(device: int) -> str | None:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split()
            if fields[2] == wanted:
                return f"a mount on {fields[4]}"
    return None


def _exclusive(root: str) -> str | None:
    # O_EXCL on a block device fails while a file system of any mount namespace claims it.
    try:
        os.close(os.open(root, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return "a mount in another mount namespace, or another claim of the kernel's"
        return f"something: it cannot be opened ({os.strerror(error.errno or 0)})"
    return None


def _loop(real: str) -> str | None:
    try:
        names = os.listdir("/sys/block")
    except OSError:
        return None
    for name in names:
        if not name.startswith("loop"):
            continue
        try:
            with open(
                f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape"
            ) as file:
                backing = file.read().strip()
        except OSError:
            continue
        if backing.removesuffix(" (deleted)") == real:
            return f"loop device /dev/{name}"
    return None


def _posix_lock(root: str) -> str | None:
    """UML takes an fcntl lock on its disks: the kernel tells who has it."""
    # struct flock of this machine's C library: type, whence, (pad), start, length, pid.
    layout = "hhqqi4x" if struct.calcsize("l") == 8 else "hhlli"
    try:
        descriptor = os.open(root, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        request = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, request)
        kind, _, _, _, pid = struct.unpack(layout, answer)[:5]
    finally:
        os.close(descriptor)
    if kind == fcntl.F_UNLCK:
        return None
    return f"a UML or another program that locked it (pid {pid})"


def wait_free(root: str, wait: float) -> None:
    """Wait until nothing uses a root; a dead mount namespace takes a moment. RootBusy after it."""
    waiting = Wait(wait)
    while (user := used_by(root)) is not None:
        if not waiting.goes_on(user):
            raise RootBusy(f"root {root} is in use by {user}")
        waiting.pause()
