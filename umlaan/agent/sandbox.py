"""The words of bubblewrap by which a command runs in a root that is not trusted.

What is in that root, its programs and its links too, may be anybody's. The command has PID, mount,
UTS, IPC and network namespaces of its own; the machine's root is detached (pivot_root), proc is
read-only, no file is a device and no program gains rights by its file. What is left of root's
capabilities is about the files of the root itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from umlaan.agent import bounded

PROGRAM = "bwrap"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What dpkg and the scripts of packages use; AUDIT_WRITE is su's, which fails without it.
_KEPT = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("SETFCAP", "SETGID", "SETUID", "SYS_CHROOT"),
)
_SMALL = 64 << 20
MISSING = (
    "bubblewrap is not installed on this lab host, and a root is entered only in its sandbox; "
    "umlaan up installs it, or: apt-get install bubblewrap"
)


class NoSandbox(OSError):
    """Bubblewrap is not on this machine; the message says how it comes there."""


def program() -> str:
    """Where bubblewrap is. NoSandbox without it."""
    for folder in os.environ.get("PATH", PATH).split(":"):
        if os.access(f"{folder}/{PROGRAM}", os.X_OK):
            return f"{folder}/{PROGRAM}"
    raise NoSandbox(MISSING)


def apart(*, network: bool = False) -> list[str]:
    """Bubblewrap, the namespaces and the rights; which files are seen is said behind it."""
    words = [program(), "--die-with-parent"]
    # Else a program of a guest's could type into the terminal of who runs it (TIOCSTI).
    words.append("--new-session")
    # The command is PID 1: a process of bubblewrap's own in there would hold the machine's bwrap
    # open (/proc/1/exe), for root of the sandbox to write to.
    words += ["--unshare-pid", "--as-pid-1"]
    words += ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if not network:
        words.append("--unshare-net")
    words += ["--cap-drop", "ALL"]
    for name in _KEPT:
        words += ["--cap-add", f"CAP_{name}"]
    return words


def tree(root: str, *, read_only: bool) -> list[str]:
    """A folder of this machine as the sandbox's root."""
    return ["--ro-bind" if read_only else "--bind", root, "/"]


def proc() -> list[str]:
    """Processes of the sandbox alone; sysctls and sysrq can be read and not written."""
    return ["--proc", "/proc", "--remount-ro", "/proc"]


def devices() -> list[str]:
    """null, zero, full, random, urandom, tty, pts and shm."""
    return ["--dev", "/dev"]


def memory(path: str, mode: int = 0o755, size: int | None = _SMALL) -> list[str]:
    """A folder in memory that ends with the sandbox; without a size half of what there is."""
    limit = ["--size", str(size)] if size else []
    return ["--perms", f"{mode:o}", *limit, "--tmpfs", path]


def command(words: Sequence[str]) -> list[str]:
    """What is run, from the root's top."""
    return ["--chdir", "/", "--", *words]


def run_tool(
    words: Sequence[str],
    path: str,
    *,
    seconds: float,
    most: int = 1 << 20,
    writable: bool = False,
) -> bounded.Said:
    """Have a program of this machine's read, or repair, a file system made by who knows whom.

    Whatever that leads it to, it has the image or partition alone, which is put behind its words.
    OSError where the program was not come to.
    """
    real = os.path.realpath(path)
    device = stat.S_ISBLK(os.stat(real).st_mode)
    bind = "--dev-bind" if device else "--bind" if writable else "--ro-bind"
    return _run([*words, real], [bind, real, real], seconds, most)


def run_program(path: str, *words: str, seconds: float) -> bounded.Said:
    """Ask a program made by who knows whom; it sees what root can read, and changes nothing.

    OSError where it was not come to, its last words what the kernel says.
    """
    real = os.path.realpath(path)
    return _run([real, *words], ["--ro-bind", real, real], seconds, bounded.MOST)


def _run(words: Sequence[str], bind: Sequence[str], seconds: float, most: int) -> bounded.Said:
    line = [*apart(), *tree("/", read_only=True), *proc(), *devices()]
    line += [*memory("/run"), *memory("/tmp"), *bind, *command(words)]
    said = bounded.run(line, seconds, most=most)
    # The code of bubblewrap's own failure is one that e2fsck has, too.
    if said.code == 1 and said.errors.startswith(f"{PROGRAM}: "):
        raise OSError(f"{' '.join(words)}: {said.errors.strip()}")
    return said
