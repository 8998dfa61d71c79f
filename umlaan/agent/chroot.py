"""``root-run --root PATH [--read-only] -- CMD…``: run a command in the root of a stopped node.

The root is mounted only in a mount namespace of this command's own, under the root's lock, and all
that the command started ends with it (a PID namespace): no mount and no daemon is left, whatever
kills it. Exit code: the command's; 199 with one line on standard error where the root is in use,
so that the caller can tell it from the command's own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from typing import Any

from umlaan.agent import node, proc, rootlock, sweep
from umlaan.agent.files import make_folder, run_folder

REFUSED = 199
MARK = "umlaan root-run: "
MOUNT_POINT = "/run/umlaan/root"
_NODES = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9), ("tty", 0))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Allows services again outside of such a run, should a killed one leave it behind.
_POLICY = (
    "#!/bin/sh\n# umlaan: no service starts in a chroot\n[ ! -e /run/umlaan-chroot ] || exit 101\n"
)
_PACKAGES = re.compile(r"\b(apt|apt-get|aptitude|dpkg)\b")
_PASSED_ON = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "TERM", "DEBIAN_FRONTEND")


class MountFault(Exception):
    """The root cannot be mounted; the message quotes mount."""


def mount(*words: str) -> None:
    """mount(8). MountFault, quoting it, if it fails."""
    done = subprocess.run(
        ["mount", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise MountFault(done.stderr.strip() or f"mount {' '.join(words)}: exit {done.returncode}")


def mount_root(root: str, read_only: bool) -> None:
    """Mount it on MOUNT_POINT; what only reads leaves the journal alone."""
    loop = [] if stat.S_ISBLK(os.stat(root).st_mode) else ["loop"]
    if not read_only:
        mount("-o", ",".join([*loop, "rw"]), root, MOUNT_POINT)
        return
    try:
        mount("-o", ",".join([*loop, "ro", "noload"]), root, MOUNT_POINT)
    except MountFault:
        # Only ext3 and ext4 know noload.
        mount("-o", ",".join([*loop, "ro"]), root, MOUNT_POINT)


def furnish(top: str, command: str) -> None:
    """What programs expect beside the files: proc, a few devices, a fresh /run, name resolution."""
    if os.path.isdir(f"{top}/proc"):
        mount("-t", "proc", "proc", f"{top}/proc")
    if os.path.isdir(f"{top}/dev"):
        mount("-t", "tmpfs", "-o", "mode=755,size=1m", "dev", f"{top}/dev")
        for name, minor in _NODES:
            os.mknod(
                f"{top}/dev/{name}", stat.S_IFCHR, os.makedev(5 if name == "tty" else 1, minor)
            )
            os.chmod(f"{top}/dev/{name}", 0o666)
        for name, target in (("fd", "/proc/self/fd"), ("ptmx", "pts/ptmx")):
            os.symlink(target, f"{top}/dev/{name}")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"{top}/dev/{name}")
        os.mkdir(f"{top}/dev/pts")
        mount(
            "-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", f"{top}/dev/pts"
        )
        os.mkdir(f"{top}/dev/shm", 0o1777)
    if os.path.isdir(f"{top}/run"):
        mount("-t", "tmpfs", "-o", "mode=755", "run", f"{top}/run")
        os.mkdir(f"{top}/run/lock", 0o1777)
        with open(f"{top}/run/umlaan-chroot", "w", encoding="ascii"):
            pass
    resolv = f"{top}/etc/resolv.conf"
    if "etc/resolv.conf" in command:
        # It is about the root's own.
        return
    if os.path.isfile(resolv) and not os.path.islink(resolv) and os.path.isfile("/etc/resolv.conf"):
        mount("--bind", "/etc/resolv.conf", resolv)


@contextlib.contextmanager
def no_services(top: str, wanted: bool) -> Any:
    """While packages are installed, Debian's policy hook keeps their daemons from starting."""
    path = f"{top}/usr/sbin/policy-rc.d"
    ours = wanted and os.path.isdir(os.path.dirname(path)) and not os.path.lexists(path)
    if ours:
        with open(path, "w", encoding="ascii") as file:
            file.write(_POLICY)
        os.chmod(path, 0o755)
    try:
        yield
    finally:
        if wanted and _is_ours(path):
            os.unlink(path)


def _is_ours(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read() == _POLICY
    except OSError:
        return False


def _environment() -> dict[str, str]:
    passed = {k: v for k, v in os.environ.items() if k.lower() in _PASSED_ON or k in _PASSED_ON}
    own = {"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "USER": "root", "SHELL": "/bin/sh"}
    return {**passed, **own}


def inside(root: str, command: list[str], read_only: bool) -> int:
    """PID 1 of the namespaces: mount, run, end all that is left, unmount; the command's code."""
    try:
        mount("--make-rprivate", "/")
        run_folder()
        make_folder(MOUNT_POINT, 0o700)
        mount_root(root, read_only)
        furnish(MOUNT_POINT, " ".join(command))
    except (MountFault, OSError) as error:
        print(f"{MARK}root {root}: {error}", file=sys.stderr)
        return REFUSED
    packages = not read_only and bool(_PACKAGES.search(" ".join(command)))
    try:
        with no_services(MOUNT_POINT, packages):
            code = _run(command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        code = 127
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    # Unmounted here, not by the namespace's end, which comes later: the next may launch at once.
    done = subprocess.run(["umount", "-R", MOUNT_POINT], capture_output=True, text=True)
    if done.returncode:
        print(f"{MARK}umount: {done.stderr.strip()}", file=sys.stderr)
        return REFUSED
    return code


def _run(command: list[str]) -> int:
    child = os.fork()
    if child == 0:
        try:
            os.chroot(MOUNT_POINT)
            os.chdir("/")
            os.execvpe(command[0], command, _environment())
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)
    # As PID 1 this reaps whatever daemons were orphaned, until the command itself ends.
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def run(root: str, command: list[str], read_only: bool) -> int:
    """Take the lock, make the namespaces, run; the command's exit code."""
    lock = rootlock.take(root, f"chroot: {' '.join(command)[:120]}", wait=20.0)
    try:
        rootlock.wait_free(root, 5.0)
        # Not closed on the fork: while anything of this lives, the lock is held.
        proc.unshare(proc.CLONE_NEWNS | proc.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            code = REFUSED
            try:
                proc.die_with_parent(signal.SIGKILL)
                code = inside(root, command, read_only)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code if code >= 0 else 128 - code)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: os.kill(child, signal.SIGKILL))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    finally:
        os.close(lock)


def make_way(directory: str, root: str) -> None:
    """RootBusy if the node is up; what a dead UML of it left behind is ended."""
    one = {"name": os.path.basename(directory), "dir": directory, "root": root}
    one["umid"] = one["name"]
    row = node.state(one)
    if row["running"]:
        raise rootlock.RootBusy("its node is up")
    if row["leftovers"]:
        sweep.clear(one)


def main(argv: list[str]) -> int:
    """The ``root-run`` verb."""
    parser = argparse.ArgumentParser(prog="root-run")
    parser.add_argument("--root", required=True)
    parser.add_argument("--dir", help="the node's folder: refuse while its UML runs")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        if options.dir:
            make_way(options.dir, options.root)
        if not os.path.exists(options.root):
            raise rootlock.RootBusy(f"root {options.root} is not there")
        return run(options.root, command, options.read_only)
    except (rootlock.RootBusy, sweep.Unkillable, OSError) as error:
        print(f"{MARK}{error}", file=sys.stderr)
        return REFUSED
