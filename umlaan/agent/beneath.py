"""Files of a root that is not trusted, reached by the machine itself: no link leads out of it.

A path is walked part by part on descriptors; a link is read and followed as inside a chroot (what
openat2 calls RESOLVE_IN_ROOT, which kernels before 5.6 lack). Whoever reads, writes or removes a
file of such a root from outside of its sandbox goes through here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from typing import BinaryIO

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO of a guest's must not be waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LINKS = 40
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _link(folder: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        # EINVAL: it is no link; that it is missing says whoever opens it.
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


@contextlib.contextmanager
def place(top: str, path: str, *, follow: bool) -> Iterator[tuple[int, str]]:
    """(its folder's descriptor, its name there) of a path below top; the name is no link then.

    follow: a link at the path's very end is followed as well; else it is the name. OSError where a
    folder on the way is missing, or is none.
    """
    with contextlib.ExitStack() as opened:

        def enter(name: str, below: int | None) -> int:
            descriptor = os.open(name, _FOLDER, dir_fd=below)
            opened.callback(os.close, descriptor)
            return descriptor

        # The folders that lead to where the walk stands; the first is its own parent.
        way, todo, name, links = [enter(top, None)], _parts(path), ".", 0
        while todo:
            name = todo.pop(0)
            if name == "..":
                del way[max(len(way) - 1, 1) :]
                name = "."
                continue
            target = _link(way[-1], name) if todo or follow else None
            if target is not None:
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    del way[1:]
                todo = _parts(target) + todo
                name = "."
            elif todo:
                way.append(enter(name, way[-1]))
        yield way[-1], name


def look(top: str, path: str, *, follow: bool = False) -> os.stat_result | None:
    """What stands at a path below top; None where there is nothing."""
    try:
        with place(top, path, follow=follow) as (folder, name):
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def is_folder(top: str, path: str) -> bool:
    """Whether a folder, and no link to one, stands at a path below top."""
    found = look(top, path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_program(top: str, path: str) -> bool:
    """Whether a path below top is, or leads to, a file that may be executed."""
    found = look(top, path, follow=True)
    return found is not None and stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)


def create(top: str, path: str, data: bytes, mode: int) -> bool:
    """Write a new file; False, and nothing done, where something stands there already."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with place(top, path, follow=False) as (folder, name):
        try:
            descriptor = os.open(name, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            return False
        with open(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, mode)
    return True


@contextlib.contextmanager
def reading(top: str, path: str) -> Iterator[BinaryIO]:
    """A file that a path below top is, or leads to. OSError where it is none, or no plain file."""
    with place(top, path, follow=True) as (folder, name):
        descriptor = os.open(name, _READ, dir_fd=folder)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no plain file", f"{top}/{path}")
        yield file


def copy(top: str, path: str, target: str) -> None:
    """Copy a file from below top to a new file of this machine's."""
    with reading(top, path) as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file)


def remove_if(top: str, path: str, data: bytes) -> None:
    """Remove a file that still holds exactly this; what is anything else stays."""
    try:
        with place(top, path, follow=False) as (folder, name):
            with open(os.open(name, _READ, dir_fd=folder), "rb") as file:
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                ours = regular and file.read(len(data) + 1) == data
            if ours:
                os.unlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in (*_GONE, errno.ENXIO):
            raise
