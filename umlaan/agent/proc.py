"""Processes of the lab host, told apart by pid, start time and command line together."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x2, 0x4, 0x8
_TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One line of /proc/PID/stat, as far as it identifies the process."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start: int

    @property
    def dead(self) -> bool:
        """A zombie is dead: some PID 1 never reap them."""
        return self.state in "ZX"


def process(pid: int) -> Process | None:
    """The process of that pid; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    # The command's name stands in brackets and may hold blanks and brackets itself.
    fields = text[text.rfind(")") + 2 :].split()
    return Process(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def cmdline(pid: int) -> list[str]:
    """The command line as words; empty for a zombie or none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="surrogateescape").split("\0")[:-1]
    except OSError:
        return []


def nspids(pid: int) -> list[int]:
    """The pid in each PID namespace, the outermost first; empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return [int(word) for word in line.split()[1:]]
    except (OSError, ValueError):
        pass
    return []


def boot_id() -> str:
    """Names this boot of the lab host: start times of another boot mean nothing."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def is_same(pid: int, start: int, argv: list[str]) -> bool:
    """True if the process of that pid is alive and still the one that was recorded."""
    found = process(pid)
    return found is not None and not found.dead and found.start == start and cmdline(pid) == argv


def age(start: int) -> float:
    """Seconds since a start time in ticks."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / _TICKS)


def pids() -> list[int]:
    """All pids of this namespace."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def user_of(pid: int) -> int | None:
    """The user who started a process, also of a setuid program; None if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Uid:"):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def carrying(words: set[str], users: set[int]) -> list[Process]:
    """Living processes of these users whose command line holds all these words.

    Anybody can write any words. UML's helper threads that sit in sessions of their own (one a
    console) are found this way and by no process group.
    """
    found = []
    for pid in pids():
        if words <= set(cmdline(pid)) and user_of(pid) in users:
            one = process(pid)
            if one is not None and not one.dead:
                found.append(one)
    return found


def holding(path: str, users: set[int], sessions: set[int] | None = None) -> list[Process]:
    """Living processes of these users that have a file open, of all sessions or of these."""
    try:
        wanted = os.stat(path)
    except OSError:
        return []
    found = []
    for pid in pids():
        one = process(pid)
        if one is None or one.dead or (sessions is not None and one.session not in sessions):
            continue
        if _has_open(pid, wanted) and user_of(pid) in users:
            found.append(one)
    return found


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        with contextlib.suppress(OSError):
            info = os.stat(f"/proc/{pid}/fd/{name}")
            if (info.st_dev, info.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
            # A sandbox has a node of its own for the same device.
            device = stat.S_ISBLK(wanted.st_mode) and stat.S_ISBLK(info.st_mode)
            if device and info.st_rdev == wanted.st_rdev:
                return True
    return False


def children(pid: int) -> list[int]:
    """Pids of the living children of a process."""
    return [p for p in pids() if (one := process(p)) and one.parent == pid and not one.dead]


def _libc(function: str, what: str, *arguments: int | bytes | None) -> None:
    # Imported late: most that looks at nodes needs no system call of its own.
    import ctypes

    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter(namespace: int) -> None:
    """Put this thread into the network namespace of a descriptor."""
    _libc("setns", "network namespace", namespace, CLONE_NEWNET)


def enter_network(namespace: str | None) -> None:
    """Put this process into a named network namespace. OSError, naming it, if it is not there."""
    if namespace is None:
        return
    try:
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileNotFoundError(f"network namespace {namespace} is not there") from None
    try:
        _libc("setns", f"network namespace {namespace}", descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)


def ask_inside(namespace: str | None, ask: Callable[[], str]) -> str:
    """What a function says inside a network namespace; a child enters it, this process stays.

    Its error, whatever it is, is raised here: FileNotFoundError as that, all else as OSError.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            enter_network(namespace)
            said = ask()
            code = 0
        except FileNotFoundError as error:
            said, code = str(error), 2
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            said = f"{type(error).__name__}: {error}"
        finally:
            with os.fdopen(writer, "wb") as file:
                file.write(said.encode(errors="surrogateescape"))
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read().decode(errors="surrogateescape")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 2:
        raise FileNotFoundError(answer)
    if code:
        raise OSError(f"in namespace {namespace}: {answer or f'ended by signal {-code}'}")
    return answer


def unshare(flags: int) -> None:
    """unshare(2). OSError if not allowed."""
    _libc("unshare", "unshare", flags)


def die_with_parent(signal_number: int) -> None:
    """Have this process killed when its parent ends."""
    _libc("prctl", "prctl", PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def keep_mounts_apart() -> None:
    """In a mount namespace of one's own: what is mounted from now on is seen by nobody else."""
    _libc("mount", "mount --make-rprivate /", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def mount_own_proc() -> None:
    """/proc of this process's own PID namespace, in its own mount namespace."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _libc("mount", "mount /proc", b"proc", b"/proc", b"proc", flags, None)


def unmount(path: str) -> None:
    """umount(2). OSError, naming the path, if it fails."""
    _libc("umount2", f"umount {path}", os.fsencode(path), 0)
