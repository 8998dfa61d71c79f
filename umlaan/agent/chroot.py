"""``root-run --root PATH [--read-only] [--network] -- CMD…``: a command in a stopped node's root.

The root is mounted only in a mount namespace of this command's own, under the root's lock, and the
command runs in a sandbox: whose the root's programs and links are is not known. All that it
started ends with it: no mount and no daemon is left, whatever kills it. Exit code: the command's;
199 with one line on standard error where the root is in use or cannot be entered, so that the
caller can tell it from the command's own.
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
from collections.abc import Iterator
from typing import TYPE_CHECKING

from umlaan.agent import beneath, node, proc, relay, rootlock, sandbox, sweep
from umlaan.agent.files import make_folder, run_folder

if TYPE_CHECKING:
    from umlaan.agent import lent, mirrors

REFUSED = 199
MARK = "umlaan root-run: "
MOUNT_POINT = "/run/umlaan/root"
# Says to what runs in a root that no init is there.
_SIGN = "/run/umlaan-chroot"
_POLICY_PATH = "/usr/sbin/policy-rc.d"
# Allows services again outside of such a run, should a killed one leave it behind.
_POLICY = f"#!/bin/sh\n# umlaan: no service starts in a chroot\n[ ! -e {_SIGN} ] || exit 101\n"
_PACKAGES = re.compile(r"\b(apt|apt-get|aptitude|dpkg)\b")
_PASSED_ON = ("TERM", "DEBIAN_FRONTEND")
_RESOLV = "/etc/resolv.conf"


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
    # No device and no right of a file in it counts on this machine.
    options = [*loop, "nodev", "nosuid"]
    if not read_only:
        mount("-o", ",".join([*options, "rw"]), root, MOUNT_POINT)
        return
    try:
        mount("-o", ",".join([*options, "ro", "noload"]), root, MOUNT_POINT)
    except MountFault:
        # Only ext3 and ext4 know noload.
        mount("-o", ",".join([*options, "ro"]), root, MOUNT_POINT)


@contextlib.contextmanager
def no_services(top: str, wanted: bool) -> Iterator[None]:
    """While packages are installed, Debian's policy hook keeps their daemons from starting."""
    if not wanted:
        yield
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        beneath.create(top, _POLICY_PATH, _POLICY.encode(), 0o755)
    try:
        yield
    finally:
        beneath.remove_if(top, _POLICY_PATH, _POLICY.encode())


def _environment() -> dict[str, str]:
    passed = {k: v for k, v in os.environ.items() if k in _PASSED_ON}
    own = {
        "PATH": sandbox.PATH,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "USER": "root",
        "SHELL": "/bin/sh",
    }
    return {**passed, **own}


def entered(top: str, command: list[str], *, read_only: bool, network: bool) -> list[str]:
    """Bubblewrap's words: the root as it is, and what programs expect beside the files.

    A folder that the root lacks, or has as a link, gets nothing.
    """
    words = [*sandbox.apart(network=network), *sandbox.tree(top, read_only=read_only)]
    if beneath.is_folder(top, "/proc"):
        words += sandbox.proc()
    if beneath.is_folder(top, "/dev"):
        words += sandbox.devices()
    if beneath.is_folder(top, "/run"):
        words += [*sandbox.memory("/run"), "--perms", "1777", "--dir", "/run/lock", "--dir", _SIGN]
    # Not where the command is about the root's own.
    if network and _RESOLV[1:] not in " ".join(command) and resolves(top):
        words += ["--ro-bind", _RESOLV, _RESOLV]
    return words + sandbox.command(command)


def resolves(top: str) -> bool:
    """Whether the root has a file for name servers that this machine's can stand in for."""
    found = beneath.look(top, _RESOLV) if beneath.is_folder(top, "/etc") else None
    return found is not None and stat.S_ISREG(found.st_mode) and os.path.isfile(_RESOLV)


def inside(root: str, command: list[str], *, read_only: bool, way: mirrors.Ways | None) -> int:
    """PID 1 of a namespace: mount, run, end all that is left, unmount; the command's code."""
    packages = not read_only and bool(_PACKAGES.search(" ".join(command)))
    try:
        proc.keep_mounts_apart()
        # Bubblewrap looks there for the processes that it makes.
        proc.mount_own_proc()
        run_folder()
        make_folder(MOUNT_POINT, 0o700)
        mount_root(root, read_only)
        words = entered(MOUNT_POINT, command, read_only=read_only, network=way is not None)
        with no_services(MOUNT_POINT, packages):
            code = _run(words, _network(way))
        # Here, not by the namespace's end, which comes later: the next may launch at once.
        proc.unmount(MOUNT_POINT)
    except (MountFault, OSError) as error:
        print(f"{MARK}root {root}: {error}", file=sys.stderr)
        return REFUSED
    if code is None:
        print(f"{MARK}root {root}: bubblewrap does not come to the command", file=sys.stderr)
        return REFUSED
    return code


def _network(way: mirrors.Ways | None) -> lent.Network | None:
    if way is None:
        return None
    from umlaan.agent import lent

    return lent.Network(way)


def _run(words: list[str], network: lent.Network | None) -> int | None:
    """The command's code; None where bubblewrap, which says why, did not come to it."""
    reads, writes = os.pipe()
    words[1:1] = ["--json-status-fd", str(writes)]
    with relay.Streams() as streams:
        with network.entered() if network else contextlib.nullcontext():
            process = subprocess.Popen(
                words,
                env={**_environment(), **(network.environment() if network else {})},
                pass_fds=(writes,),
                stdin=streams.given.get("stdin"),
                stdout=streams.given.get("stdout"),
                stderr=streams.given.get("stderr"),
            )
        os.close(writes)
        streams.begin()
        code = process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
    with open(reads, "rb") as status:
        told = b'"exit-code"' in status.read()
    return code if told or code < 0 else None


def run(root: str, command: list[str], *, read_only: bool, way: mirrors.Ways | None = None) -> int:
    """Take the lock, make the namespaces, run; the command's exit code."""
    lock = rootlock.take(root, f"chroot: {' '.join(command)[:120]}", wait=20.0)
    try:
        rootlock.wait_free(root, 5.0)
        # Not closed on the fork: while the first process lives, the lock is held.
        proc.unshare(proc.CLONE_NEWNS | proc.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            code = REFUSED
            try:
                proc.die_with_parent(signal.SIGKILL)
                code = inside(root, command, read_only=read_only, way=way)
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


def _way(urls: list[str]) -> mirrors.Ways:
    # Imported late: most commands fetch nothing, and each has to wait for what is imported.
    from umlaan.agent import mirrors, outward

    return mirrors.ways(urls, outward.host_proxy())


def main(argv: list[str]) -> int:
    """The ``root-run`` verb."""
    parser = argparse.ArgumentParser(prog="root-run")
    parser.add_argument("--root", required=True)
    parser.add_argument("--dir", help="the node's folder: refuse while its UML runs")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--network", action="store_true", help="a way to package mirrors")
    parser.add_argument("--mirror", action="append", default=[], help="a URL of one more")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        if options.dir:
            make_way(options.dir, options.root)
        if not os.path.exists(options.root):
            raise rootlock.RootBusy(f"root {options.root} is not there")
        way = _way(options.mirror) if options.network else None
        return run(options.root, command, read_only=options.read_only, way=way)
    except (rootlock.RootBusy, sweep.Unkillable, OSError) as error:
        print(f"{MARK}{error}", file=sys.stderr)
        return REFUSED
