"""What root runs, reads or believes must be root's own, along its whole path.

It imports nothing of umlaan: over ssh this file alone is run before the agent is there, as
``python3 -c … FOLDER|- DIGEST [ARRIVED]``, to say where the agent is to be kept (see ``place``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pwd
import stat
import sys
import time

OTHERS = stat.S_IWGRP | stat.S_IWOTH
_LINKS = 40
_ZIP_MAX = 16 << 20
UNUSED_S = 30 * 86400.0


def users() -> set[int]:
    """Whose files are believed: root's, and those of who runs this.

    Not of who became root by sudo: at the next boot nobody has.
    """
    return {0, os.geteuid()}


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


def place(folder: str, digest: str, arrived: str | None = None) -> tuple[str, bool]:
    """(path of the agent with this SHA-256, whether it is there), in a folder of this user's alone.

    folder: "-" for the one in the user's home. arrived: a name in it that was just uploaded and is
    to take its place. What lies there is compared by content each time. OSError, saying why.
    """
    if folder == "-":
        folder = f"{pwd.getpwuid(os.geteuid()).pw_dir}/.cache/umlaan/agent"
    os.umask(0o022)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    must_be_own(folder)
    path = f"{folder}/{digest[:16]}.zip"
    if arrived is not None:
        beside = f"{folder}/{arrived}"
        os.chmod(beside, 0o600)
        if not _holds(beside, digest):
            os.unlink(beside)
            raise OSError(errno.EIO, "only a part of it arrived", beside)
        os.rename(beside, path)
        _tidy(folder)
    there = _holds(path, digest)
    if there:
        os.utime(path)
    return path, there


def _holds(path: str, digest: str) -> bool:
    try:
        return hashlib.sha256(read(path, _ZIP_MAX)).hexdigest() == digest
    except OSError:
        return False


def _tidy(folder: str) -> None:
    """Agents that nobody has asked for in a month go, and uploads that were cut off."""
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            if time.time() - os.lstat(f"{folder}/{name}").st_mtime > UNUSED_S:
                os.unlink(f"{folder}/{name}")


def main(argv: list[str]) -> int:
    """One line: "there PATH" or "lacks PATH"."""
    try:
        path, there = place(*argv)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print("there" if there else "lacks", path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
