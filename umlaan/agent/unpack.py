"""Take a tarball out, whoever made it: nothing leaves its folder, nothing in it has rights.

By tar itself (Debian 12's Python has no filter yet, and tar knows every compression), into a folder
that only root can enter until all of it was judged. No owner of the archive's, no setuid bit, no
device; a link that leads outside is refused, and so is what would fill the disk.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from umlaan.agent.atomic import remove_tree
from umlaan.agent.chamber import BuildError

# One file of an archive, a sparse one as well, and what stays free on the disk.
FILE_MAX = 16 << 30
RESERVE = 256 << 20
_LOOK_S = 0.2
# Rights of the archive's that no copy of it has: setuid, setgid, sticky, and others' to write.
_RIGHTS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | stat.S_IWGRP | stat.S_IWOTH


def kind_of(path: str) -> str:
    """What stands at a path, in words: directory, file, nothing, or what else it is."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "nothing"
    kinds = {
        stat.S_IFDIR: "directory",
        stat.S_IFREG: "file",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def unpack(path: str, target: str, *options: str, outside: bool = False) -> None:
    """The archive's content in a new or empty folder. BuildError, naming it; then nothing is left.

    outside: links may lead outside.
    """
    if os.path.isdir(target) and not os.listdir(target):
        # Its maker holds it.
        os.chmod(target, 0o700)
    else:
        remove_tree(target)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.mkdir(target, 0o700)
    try:
        if kind_of(path) != "file":
            raise BuildError(f"{path}: is {_a(kind_of(path))}, not a tarball")
        _tar(path, target, options)
        tame(target, path, outside)
        os.chmod(target, 0o755)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_tree(target)
        raise


def _a(kind: str) -> str:
    return kind if kind == "nothing" else f"a {kind}"


def _tar(path: str, target: str, options: tuple[str, ...]) -> None:
    command = ["tar", "-xf", path, "-C", target, "--no-same-owner", "--no-same-permissions"]
    # Unbuffered and by a file: a thousand complaints must not stop it, and only the first is told.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*command, "--delay-directory-restore", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "LC_ALL": "C"},
            preexec_fn=_bounded,
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)
                    break
                if _free(target) < RESERVE:
                    raise BuildError(
                        f"{path}: unpacked it does not fit: {_free(target) >> 20} MiB are left on "
                        f"the disk of {os.path.dirname(target)}"
                    )
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said.seek(0)
        text = said.read(4096).decode(errors="backslashreplace").strip().splitlines()
    if process.returncode:
        raise BuildError(f"{path}: {text[0] if text else f'tar: exit code {process.returncode}'}")


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_MAX, FILE_MAX))


def _free(folder: str) -> int:
    info = os.statvfs(folder)
    return info.f_bavail * info.f_frsize


def tame(folder: str, what: str, outside: bool = False) -> None:
    """Take rights out of a tree of our own; BuildError for a device in it or a link that leaves it.

    outside: links may lead outside, as in a tree that its user built there.
    """
    top = os.path.realpath(folder)
    for path, info in _walk(folder):
        name, kind = os.path.relpath(path, folder), stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFLNK:
            real = os.path.realpath(path)
            if not outside and real != top and not real.startswith(f"{top}/"):
                raise BuildError(
                    f"{what}: {name!r} is a link to {os.readlink(path)!r}, outside the archive"
                )
        elif kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise BuildError(f"{what}: {name!r} is neither a file, a directory nor a link")
        elif info.st_mode & _RIGHTS:
            os.chmod(path, stat.S_IMODE(info.st_mode) & ~_RIGHTS)


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    todo = [folder]
    while todo:
        with os.scandir(todo.pop()) as listing:
            for item in listing:
                info = item.stat(follow_symlinks=False)
                yield item.path, info
                if stat.S_ISDIR(info.st_mode):
                    todo.append(item.path)


def leaving_out(patterns: list[str]) -> Callable[[str, list[str]], set[str]]:
    """For copytree: names that match, and what is neither file, directory nor link (a socket)."""
    named = shutil.ignore_patterns(*patterns)

    def ignore(folder: str, names: list[str]) -> set[str]:
        plain = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
        odd = set()
        for name in names:
            with contextlib.suppress(OSError):
                if stat.S_IFMT(os.lstat(f"{folder}/{name}").st_mode) not in plain:
                    odd.add(name)
        return {*named(folder, names), *odd}

    return ignore
