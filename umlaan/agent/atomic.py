"""Written beside, put on disk, then renamed: a file, link or folder is old or new, never half.

Each writer has a name of its own beside the target, held by its lock: two of them never meet, be
they threads or processes, and what a killed one left goes with the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

MARK = ".umlaan-new-"
_EXCHANGE = 2
_AT_FDCWD = -100


def name_beside(path: str) -> str:
    """A name that nothing has, beside a path; no program that lists the folder takes it for one."""
    folder, name = os.path.split(path)
    # A name may have 255 bytes.
    short = os.fsdecode(os.fsencode(name)[:200])
    return os.path.join(folder, f".{short}{MARK}{os.urandom(6).hex()}")


def target_of(name: str) -> str | None:
    """The name that a writer's own name beside it stands for; None of any other."""
    front, mark, end = name.partition(MARK)
    return front[1:] if mark and front.startswith(".") and len(end) == 12 else None


def sync(path: str) -> None:
    """Have a file or folder on disk; a file system that cannot sync a folder keeps it otherwise."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


def sync_below(folder: str) -> None:
    """Have all that a folder holds on disk, by one call for its file system."""
    import ctypes  # noqa: PLC0415 - 10 ms that only a folder costs

    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_file(path: str, mode: int | None = None, *, durable: bool = True) -> Iterator[str]:
    """The body fills the file whose name it gets; then that takes the path's place.

    mode: exactly this one, whatever the umask is; without it 0644 as the umask narrows it. Without
    durable the caller syncs, once for many files.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    sweep(path)
    made, descriptor = _made_file(path, 0o644 if mode is None else mode)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        yield made
        if durable:
            sync(made)
        os.rename(made, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)
        raise
    finally:
        os.close(descriptor)
    if durable:
        sync(os.path.dirname(path) or ".")


def new_link(path: str, content: str) -> None:
    """A symbolic link in the place of whatever file or link stands there."""
    made = name_beside(path)
    os.symlink(content, made)
    try:
        os.rename(made, path)
    except BaseException:
        os.unlink(made)
        raise


@contextlib.contextmanager
def new_folder(path: str) -> Iterator[str]:
    """The body fills the folder whose name it gets; then that takes the path's place, whole.

    What stood there is gone then.
    """
    with scratch_beside(path) as made:
        yield made
        put(made, path)


@contextlib.contextmanager
def scratch_beside(path: str) -> Iterator[str]:
    """A folder to make something in that belongs to a path, away at the end.

    What a killed run left goes first. OSError, before anything is made, where something is mounted
    in that.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    sweep(path)
    made, descriptor = _made_folder(path)
    try:
        yield made
    except BaseException:
        with contextlib.suppress(OSError):
            remove(made)
        raise
    else:
        if os.path.lexists(made):
            remove(made)
    finally:
        os.close(descriptor)


def put(made: str, path: str) -> None:
    """Give a whole file or folder its place: on disk first, then by one rename.

    What stood there is gone, or is now a folder under the other name.
    """
    if os.path.isdir(made):
        sync_below(made)
    else:
        sync(made)
    try:
        os.rename(made, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        _exchange(made, path)
    sync(os.path.dirname(path) or ".")


def _exchange(made: str, path: str) -> None:
    """Swap two folders at once, so that a whole one stands at the path at every moment."""
    import ctypes  # noqa: PLC0415

    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(made), os.fsencode(path)
    if library.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), path)
    # A file system without it: a run killed in between finds nothing there, and makes it anew.
    old = name_beside(path)
    os.rename(path, old)
    os.rename(made, path)
    remove(old)


def remove(path: str) -> None:
    """Remove a file, link or whole folder. OSError, with nothing removed, where one is mounted."""
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    from umlaan.agent.files import mounts_below  # noqa: PLC0415 - files writes by this module

    if held := mounts_below(path):
        raise OSError(errno.EBUSY, f"{held[0]} is mounted in it; unmount it first", path)
    remove_tree(path)


def remove_tree(path: str) -> None:
    """Remove a folder whose content may be anybody's. OSError, with what rm said.

    shutil's goes down by one call and one open folder a level: a guest makes more of them than
    Python bears. rm follows no link and leaves no file system.
    """
    import subprocess  # noqa: PLC0415 - few verbs need it

    words = ["rm", "-rf", "--one-file-system", "--", path]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"rm: exit code {done.returncode}"]
        raise OSError(errno.EIO, said[-1][:300], path)


def left(path: str) -> list[str]:
    """What writers of a path have beside it: the living ones' and what killed ones left."""
    folder, name = os.path.split(path)
    front = f".{os.fsdecode(os.fsencode(name)[:200])}{MARK}"
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return []
    return [os.path.join(folder, each) for each in names if each.startswith(front)]


def sweep(path: str) -> None:
    """Remove what killed writers of a path left beside it; the living hold theirs."""
    for each in left(path):
        _swept(each)


def sweep_all(folder: str) -> None:
    """Remove what killed writers of anything in a folder left in it, with an earlier umlaan's."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if MARK in name or name.endswith((".new", ".new.pub")):
                _swept(os.path.join(folder, name))


def _swept(path: str) -> None:
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        if os.path.islink(path):
            os.unlink(path)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
        finally:
            os.close(descriptor)


def _made_file(path: str, mode: int) -> tuple[str, int]:
    while True:
        made = name_beside(path)
        words = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(made, words, mode)
        if _hold(descriptor, made):
            return made, descriptor


def _made_folder(path: str) -> tuple[str, int]:
    while True:
        made = name_beside(path)
        os.mkdir(made)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _hold(descriptor, made):
                return made, descriptor


def _hold(descriptor: int, made: str) -> bool:
    """Lock it for its writer; False where another one took it for a leftover in that moment."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        # Where there are no locks nothing can be swept either.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
    try:
        there = os.path.samestat(os.stat(made), os.fstat(descriptor))
    except FileNotFoundError:
        there = False
    if not there:
        os.close(descriptor)
    return there
