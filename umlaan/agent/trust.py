"""What root runs, reads or believes must be root's own, along its whole path.

``trust place FOLDER|- DIGEST`` and ``take`` keep the agent itself on a lab host over ssh: this file
is then sent as it is, so it stands alone.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat

OTHERS = stat.S_IWGRP | stat.S_IWOTH
_LINKS = 40


def users() -> set[int]:
    """Whose files are believed: root's, those of who runs this, and of who became root by sudo."""
    sudo = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    return {0, os.geteuid(), *([int(sudo)] if sudo.isdigit() else [])}


def name_of(uid: int) -> str:
    """A user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def fault_of(path: str, *, shared: bool = True) -> str | None:
    """Why somebody else could put a thing of theirs at this path; None where nobody can.

    What is not there yet is judged by the folders above it. In a sticky folder (/tmp) an entry of
    root's own is safe; shared: False, and the path itself must not be such a folder.
    """
    known, done, links = users(), "/", 0
    left = os.path.abspath(path).split("/")[1:]
    info = os.lstat("/")
    while left:
        name = left.pop(0)
        if name in ("", "."):
            continue
        if fault := _open(done, info):
            return fault
        here = os.path.join(done, name) if name != ".." else os.path.dirname(done)
        try:
            info = os.lstat(here)
        except FileNotFoundError:
            return None
        if name != ".." and info.st_uid not in known:
            return f"{here} belongs to {name_of(info.st_uid)}"
        if stat.S_ISLNK(info.st_mode):
            links += 1
            if links > _LINKS:
                return f"{here}: too many links"
            target = os.readlink(here)
            left = [*target.split("/"), *left]
            done = "/" if target.startswith("/") else done
            info = os.lstat(done)
        else:
            done = here
    if not shared and info.st_mode & OTHERS:
        return f"{done} may be written by others than its owner: chmod go-w {done}"
    return _open(done, info)


def _open(path: str, info: os.stat_result) -> str | None:
    if not stat.S_ISDIR(info.st_mode) or not info.st_mode & OTHERS or info.st_mode & stat.S_ISVTX:
        return None
    return f"{path} may be written by others than its owner: chmod go-w {path}"


def must_be_own(path: str) -> None:
    """PermissionError, saying why, where the path is not root's alone."""
    if fault := fault_of(path, shared=False):
        raise PermissionError(errno.EPERM, fault, path)


def read(path: str, limit: int = 65536) -> bytes:
    """What a file of root's own holds, at most so many bytes; it is judged once it is open.

    PermissionError, saying why, for a link, a FIFO, another user's file or folder; OSError.
    """
    if fault := fault_of(os.path.dirname(path)):
        raise PermissionError(errno.EPERM, fault, path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise PermissionError(errno.EPERM, "it is no file but a link or a socket", path) from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            fault = "it is no file"
        elif info.st_uid not in users():
            fault = f"it belongs to {name_of(info.st_uid)}"
        elif info.st_mode & OTHERS:
            fault = "it may be written by others than its owner"
        elif info.st_nlink != 1:
            fault = "it has another name elsewhere"
        if fault:
            raise PermissionError(errno.EPERM, fault, path)
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)
