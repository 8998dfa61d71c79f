"""``node-sandbox SPEC -- LINUX WORD…``: become a UML that is nobody on the lab host.

SPEC: {user, dir, uml_dir, tmpdir, memory, mem, hostfs, hostfs_writable}. The UML's file system is
a tmpfs that holds what its command line names, at the same paths, and nothing else: kernel with
its libraries, disks, uml_dir, memory, hostfs, a few devices. It runs as the user, without
capabilities, and can gain none. Not by bubblewrap: that makes no device node of another owner and
changes user only by a user namespace, so half of this would remain, with a process of its own
beside each UML.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pwd
import re
import resource
import stat
import struct
import subprocess
import sys
from typing import Any, NoReturn

from umlaan.agent import mconsole, proc
from umlaan.agent.files import RUN, make_folder, run_folder

STAGE = f"{RUN}/sandbox"
TUN = (10, 200)
# What UML or its C library opens, beside /dev/net/tun.
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000
_DETACH = 2
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_NEWIPC = 0x08000000
_F_OFD_SETLK = 37
_UBD = re.compile(r"^ubd\w+=(.+)$")
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
# UML's memory file is as large as mem=; what it makes beside it is small.
MEMORY_SLACK = 32 << 20


class Unfit(Exception):
    """What keeps the sandbox from being made; the message is for its user."""


def _call(what: str, function: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2). OSError that names the target."""
    words = [os.fsencode(word) if word else None for word in (source, target, kind, data)]
    _call(f"mount {target}", "mount", *words[:3], ctypes.c_ulong(flags), words[3])


def disks_of(argv: list[str]) -> dict[str, str]:
    """{path: disk, or cow and base of a pair}: the files that a UML's command line names."""
    found: dict[str, str] = {}
    for match in filter(None, map(_UBD.match, argv)):
        paths = [path for path in re.split("[,:]", match[1])[:2] if path.startswith("/")]
        kinds = ("disk",) if len(paths) == 1 else ("cow", "base")
        found |= dict(zip(paths, kinds, strict=False))
    return found


def loader_of(path: str) -> str | None:
    """The program interpreter that an ELF file names; None for a static one, or no ELF file."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF":
            return None
        wide = head[4] == 2
        start, size, count = (
            struct.unpack_from("<Q14xHH", head, 32)
            if wide
            else struct.unpack_from("<L10xHH", head, 28)
        )
        file.seek(start)
        table = file.read(size * count)
        for place in range(0, len(table), size):
            if struct.unpack_from("<L", table, place)[0] == 3:
                form, at = ("<QQQQ", 8) if wide else ("<LLLL", 4)
                offset, _, _, length = struct.unpack_from(form, table, place + at)
                file.seek(offset)
                return file.read(length).rstrip(b"\0").decode()
    return None


def libraries_of(path: str) -> list[str]:
    """The loader and libraries of a dynamic kernel. Unfit, quoting the loader, if one lacks."""
    loader = loader_of(path)
    if loader is None:
        return []
    if not os.path.exists(loader):
        raise Unfit(f"{path}: its loader {loader} is not on this machine")
    done = subprocess.run([loader, "--list", path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unfit(f"{path}: {(done.stderr or done.stdout).strip()}")
    found = [loader, *_LIBRARY.findall(done.stdout)]
    cache = "/etc/ld.so.cache"
    return [*dict.fromkeys(found), *([cache] if os.path.exists(cache) else [])]


class Sandbox:
    """The file system that a UML will have, while it is put together below STAGE."""

    def __init__(self, user: pwd.struct_passwd) -> None:
        self.user = user
        self.kept: list[int] = []

    def place(self, path: str, *, folder: bool) -> str:
        """Where a path of the lab host will be, made as an empty file or folder."""
        target = STAGE + os.path.normpath(path)
        os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
        if not folder and not os.path.lexists(target):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return target

    def bind(self, path: str, source: str = "", *, writable: bool = False, run: int = 0) -> None:
        """Have a file or folder of the lab host at its own path; run is 0 or _NOEXEC."""
        source = source or path
        target = self.place(path, folder=os.path.isdir(source))
        mount(source, target, None, _BIND | _REC)
        flags = _NOSUID | _NODEV | run | (0 if writable else _RDONLY)
        for point in [target, *mounts_below(target)]:
            mount("", point, None, _REMOUNT | _BIND | flags)

    def device(self, path: str, number: int, kind: int, mode: int) -> None:
        """A device node of this UML's own, which belongs to its user alone."""
        target = STAGE + os.path.normpath(path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.mknod(target, kind | mode, number)
        except PermissionError:
            # A container without CAP_MKNOD: the machine's own node, whoever may open it.
            self.bind_device(path)
            return
        os.chmod(target, mode)
        os.chown(target, self.user.pw_uid, self.user.pw_gid)

    def bind_device(self, path: str) -> None:
        """The machine's own device node."""
        mount(path, self.place(path, folder=False), None, _BIND)

    def disk(self, path: str, kind: str, own: bool) -> None:
        """A disk: umlaan's own image as it is, a user's without a change of its owner."""
        if not os.path.exists(path):
            more = "; only a UML that runs as root makes one itself" if kind == "cow" else ""
            raise Unfit(f"{path} is not there; the command line names it as a {kind}{more}")
        info, user = os.stat(path), self.user.pw_name
        if kind == "base":
            if not self.may(info, 4):
                raise Unfit(f"{path}: {user} may not read it: chmod a+r {path}")
            self.bind(path, os.path.realpath(path), run=_NOEXEC)
        elif stat.S_ISBLK(info.st_mode):
            self.kept.append(_claimed(path))
            self.device(path, info.st_rdev, stat.S_IFBLK, 0o600)
        elif own or self.may(info, 6):
            self.bind(path, os.path.realpath(path), writable=True, run=_NOEXEC)
        elif kind == "cow":
            # It grows, which a loop device cannot.
            raise Unfit(f"{path}: {user} may not write it: chown {user} {path}")
        else:
            # Its owner could make it setuid; a loop device of it has nothing but its content.
            self.kept.append(_claimed(path))
            number, descriptor = _loop(path)
            self.kept.append(descriptor)
            self.device(path, number, stat.S_IFBLK, 0o600)

    def may(self, info: os.stat_result, bits: int) -> bool:
        """Whether the user may read (4) or write (2) a file as it is."""
        whose = 0
        if info.st_uid == self.user.pw_uid:
            whose = 6
        elif info.st_gid == self.user.pw_gid:
            whose = 3
        return (info.st_mode >> whose) & bits == bits

    def memory(self, path: str, size: int, folder: str | None) -> None:
        """Where the guest's memory stands: a tmpfs of its own, or a folder of the node's alone."""
        owner = f"uid={self.user.pw_uid},gid={self.user.pw_gid}"
        target = self.place(path, folder=True)
        if folder:
            mount(folder, target, None, _BIND)
            mount("", target, None, _REMOUNT | _BIND | _NOSUID | _NODEV)
        else:
            data = f"mode=0700,{owner},size={size + MEMORY_SLACK}"
            mount("umlaan", target, "tmpfs", _NOSUID | _NODEV, data)

    def enter(self) -> None:
        """Make it the root; nothing of the lab host's is left to be found."""
        os.chdir(STAGE)
        _call("pivot_root", "pivot_root", b".", b".")
        _call("umount of the lab host's root", "umount2", b".", _DETACH)
        os.chdir("/")
        mount("", "/", None, _REMOUNT | _BIND | _RDONLY | _NOSUID)

    def drop(self) -> None:
        """Become the user for good: no group, no capability, and no way to any."""
        # What bounds a node's processes is its cgroup, not how many its user has in all.
        for most in (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_NPROC)[1]):
            with contextlib.suppress(ValueError):
                resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
                break
        libc = ctypes.CDLL(None, use_errno=True)
        number = 0
        while libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
            number += 1
        if ctypes.get_errno() != errno.EINVAL:
            raise OSError(ctypes.get_errno(), "the bounding set of capabilities cannot be dropped")
        with contextlib.suppress(OSError):
            # Kernels before 4.3 have no ambient set.
            _call("prctl", "prctl", _PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
        os.setgroups([])
        os.setresgid(*[self.user.pw_gid] * 3)
        os.setresuid(*[self.user.pw_uid] * 3)
        header = struct.pack("=Li", _CAPABILITY_VERSION_3, 0)
        _call("capset", "capset", header, bytes(24))
        _call("no_new_privs", "prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def mounts_below(target: str) -> list[str]:
    """Mount points below one, in this mount namespace."""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    plain = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), point) for point in points]
    return [point for point in plain if point.startswith(f"{target}/")]


def _claimed(path: str) -> int:
    """Open a user's disk and hold the lock that a UML of somebody else's would take. Unfit."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    layout = "hhqqi4x" if struct.calcsize("l") == 8 else "hhqqi"
    request = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, request)
    except OSError as error:
        # What cannot be locked at all is nobody's less.
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise Unfit(f"{path}: another UML or program has locked it") from None
    return descriptor


def _loop(path: str) -> tuple[int, int]:
    """A loop device of a file: (its number, a descriptor); it goes with its last user."""
    done = subprocess.run(
        ["losetup", "--find", "--show", path], capture_output=True, text=True, check=False
    )
    name = done.stdout.strip()
    if done.returncode or not name:
        raise Unfit(f"{path}: {done.stderr.strip() or 'losetup failed'}")
    descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC)
    # In use it is only marked to go.
    subprocess.run(["losetup", "--detach", name], capture_output=True, check=False)
    return os.stat(name).st_rdev, descriptor


def build(spec: dict[str, Any], argv: list[str], user: pwd.struct_passwd) -> Sandbox:
    """Put together what a UML needs, in a mount namespace of this process's own."""
    box = Sandbox(user)
    run_folder()
    make_folder(STAGE, 0o755)
    make_folder(mconsole.REPLIES, 0o711)
    proc.unshare(proc.CLONE_NEWNS | _CLONE_NEWIPC)
    mount("", "/", None, _REC | _PRIVATE)
    mount("umlaan", STAGE, "tmpfs", _NOSUID, "mode=0755,size=1m")
    for name, (major, minor) in _DEVICES.items():
        box.device(f"/dev/{name}", os.makedev(major, minor), stat.S_IFCHR, 0o666)
    box.device("/dev/net/tun", os.makedev(*TUN), stat.S_IFCHR, 0o600)
    kernel = argv[0]
    for path in libraries_of(kernel):
        box.bind(path, os.path.realpath(path))
    box.bind(kernel, os.path.realpath(kernel))
    # Of /proc a UML asks what the processor can, and the newest ones where they themselves are.
    box.bind("/proc/cpuinfo", run=_NOEXEC)
    os.mkdir(f"{STAGE}/proc/self")
    os.symlink(kernel, f"{STAGE}/proc/self/exe")
    box.memory(spec["tmpdir"] or "/dev/shm", spec["mem"], spec["memory"])
    box.bind(spec["uml_dir"], writable=True, run=_NOEXEC)
    box.bind(mconsole.REPLIES, run=_NOEXEC)
    if spec["hostfs"]:
        writable = bool(spec["hostfs_writable"])
        box.bind(spec["hostfs"], os.path.realpath(spec["hostfs"]), writable=writable, run=_NOEXEC)
    for path, kind in disks_of(argv).items():
        box.disk(path, kind, os.path.dirname(path) == spec["dir"])
    return box


def become(spec: dict[str, Any], argv: list[str]) -> NoReturn:
    """Build, enter, drop, and run the kernel. Unfit or OSError if it cannot be."""
    user = pwd.getpwnam(spec["user"])
    os.umask(0o022)
    box = build(spec, argv, user)
    os.umask(0o077)
    box.enter()
    box.drop()
    for descriptor in box.kept:
        os.set_inheritable(descriptor, True)
    # It was for this program, which is none of the UML's.
    os.environ.pop("PYTHONPATH", None)
    os.execv(argv[0], argv)


def main(argv: list[str]) -> int:
    """The ``node-sandbox`` verb: it returns only if it failed."""
    spec = json.loads(argv[0])
    try:
        become(spec, argv[2:])
    except (Unfit, OSError) as error:
        print(f"umlaan: the UML cannot be confined: {error}", file=sys.stderr)
        return 1
