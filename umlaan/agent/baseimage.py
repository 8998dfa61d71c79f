"""The Debian image that made roots are copies of: mmdebstrap, then ``mke2fs -d``; no mount.

Kept in the cache under the hash of its recipe. Made beside and renamed; its stamp is written last.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from umlaan.agent import apt
from umlaan.agent.atomic import put, remove_tree
from umlaan.agent.chamber import say
from umlaan.agent.files import locked, make_folder, mounts_below, read_json, write_json

# Raised where the recipe below changes what it makes.
RECIPE = 2
UUID = "6f9e8d2a-0000-4000-8000-000000000001"
HASH_SEED = "6f9e8d2a-0000-4000-8000-000000000002"
NEEDED = (
    "openssh-server",
    "iproute2",
    "iputils-ping",
    "net-tools",
    "ca-certificates",
    "nano",
    "busybox",
    "runit",
    "kmod",
)
# In suites from before the package usr-is-merged only the links can be made.
_BEFORE_MERGE = ("jessie", "stretch", "buster", "bullseye")
_MERGED = "/usr/share/mmdebstrap/hooks/merged-usr"
_TRIM = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
)
# busybox init: ssh answers two seconds after launch; systemd needs fifteen and more.
_HOOKS = (
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/resolv.conf',
    'chroot "$1" dpkg-divert --quiet --local --add --rename --divert /sbin/init.distrib /sbin/init',
    'ln -s /bin/busybox "$1"/sbin/init',
    'mkdir -p "$1"/etc/runit/runsvdir/umlaan && '
    'ln -sfn umlaan "$1"/etc/runit/runsvdir/current && '
    'rm -rf "$1"/etc/service && ln -s /etc/runit/runsvdir/current "$1"/etc/service',
    'for verb in poweroff reboot halt; do ln -s /bin/busybox "$1"/usr/local/sbin/$verb; done',
    'ln -sf ../proc/self/mounts "$1"/etc/mtab',
    'mkdir -p "$1"/etc/umlaan/rc.d "$1"/usr/src',
    'touch "$1"/etc/resolv.conf',
)
_PHASE = re.compile(r"^I: ((?:running apt|downloading|extracting|installing|cleaning)[^.]*)")
MEMORY = "/dev/shm"
# The unpacked system and its packages take a quarter of this; running guests want memory, too.
ROOM = 2 << 30


def key_of(made: dict[str, Any]) -> str:
    """The content key of a base image."""
    inputs = {"recipe": RECIPE, "needed": NEEDED, "hooks": _HOOKS, "trim": _TRIM, **made}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:24]


def folder(cache: str, made: dict[str, Any]) -> str:
    """The folder of a base image in the cache."""
    return f"{cache}/base/{key_of(made)}"


def is_ready(cache: str, made: dict[str, Any]) -> bool:
    """True if the image is there, whole: its stamp says how large it is."""
    home = folder(cache, made)
    stamp = read_json(f"{home}/stamp.json")
    try:
        found = os.stat(f"{home}/root.ext4").st_size
    except OSError:
        return False
    return isinstance(stamp, dict) and stamp.get("size") == found


def sources(made: dict[str, Any], own_suite: str, archive: str) -> list[str]:
    """apt lines of a root; the suite that this machine runs gets its updates and security too.

    An old suite's security archive keeps its lists and loses its packages: only main is sure.
    """
    suite = made["suite"]
    if made["mirror"] or suite != own_suite:
        return [f"deb {made['mirror'] or archive} {suite} main"]
    security = re.sub(r"/debian$", "/debian-security", archive)
    return [
        f"deb {archive} {suite} main",
        f"deb {archive} {suite}-updates main",
        f"deb {security} {suite}-security main",
    ]


def mmdebstrap(made: dict[str, Any], target: str, lines: list[str]) -> list[str]:
    """The command line that makes the base system in a folder; its mounts end with it."""
    old = made["suite"] in _BEFORE_MERGE
    packages = [*([] if old else ["usr-is-merged"]), *NEEDED, *made["packages"]]
    words = ["unshare", "--mount", "--propagation", "private"]
    words += ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
    # An i386 system runs on an amd64 kernel as it is.
    words += [f"--architectures={made['arch']}", "--skip=check/qemu"]
    words += ['--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"']
    words += [f"--dpkgopt={option}" for option in _TRIM]
    words += [f"--setup-hook={_MERGED}/setup00.sh" if old else f"--hook-dir={_MERGED}"]
    words += [f"--include={','.join(packages)}"]
    words += [f"--customize-hook={hook}" for hook in _HOOKS]
    return [*words, made["suite"], target, *lines]


def mke2fs(made: dict[str, Any], source: str, image: str) -> list[str]:
    """The command line that writes a folder as an image which old kernels can mount, too."""
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "umlaan", "-m", "1"]
    words += ["-U", UUID, "-J", "size=16", "-O", "^orphan_file,^metadata_csum_seed"]
    words += ["-E", f"hash_seed={HASH_SEED},lazy_itable_init=0,lazy_journal_init=0"]
    return [*words, "-d", source, image]


@contextlib.contextmanager
def scratch(work: str) -> Iterator[str]:
    """A folder to make the system in, gone afterwards; what a killed one left goes first.

    In memory where there is plenty: dpkg syncs each file, which takes a quarter of the time.
    """
    for left in glob.glob(f"{MEMORY}/umlaan-base-*"):
        with contextlib.suppress(OSError), _held(left):
            _remove(left)
    # Nobody can have made a folder of a random name before, nor enter it.
    place = tempfile.mkdtemp(prefix="umlaan-base-", dir=MEMORY if _roomy() else work)
    try:
        with _held(place):
            yield f"{place}/root"
    finally:
        _remove(place)


@contextlib.contextmanager
def _held(path: str) -> Iterator[None]:
    """Hold a folder of ours as long as its maker lives. OSError where another does, or owns it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(f"{path} is another user's")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _roomy() -> bool:
    try:
        info = os.statvfs(MEMORY)
    except OSError:
        return False
    held_back = info.f_flag & (os.ST_NOEXEC | os.ST_NODEV)
    with open("/proc/meminfo", encoding="ascii") as file:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", file.read(), re.MULTILINE)
    free = min(info.f_bavail * info.f_frsize, int(found.group(1)) << 10 if found else 0)
    return not held_back and free >= ROOM


def make(cache: str, made: dict[str, Any]) -> None:
    """The base image into the cache. SystemExit, naming the command, where a step fails."""
    home = folder(cache, made)
    with locked(f"{home}.lock", "base image", wait=1800):
        if is_ready(cache, made):
            return
        archive = made["mirror"] or apt.mirror()
        apt.check_suite(archive, made["suite"])
        work = f"{home}.work"
        _remove(work)
        _remove(home)
        # What it holds until it is whole are other suites' setuid programs, too.
        make_folder(work, 0o700)
        with scratch(work) as root:
            say(f"mmdebstrap {made['suite']}/{made['arch']} from {archive}")
            call(mmdebstrap(made, root, sources(made, apt.own_suite(), archive)))
            image = f"{work}/root.ext4"
            with open(image, "wb") as file:
                file.truncate(made["bytes"])
            say(f"mke2fs -d: {made['bytes'] >> 20} MiB, sparse")
            try:
                call(mke2fs(made, root, image))
            except SystemExit as error:
                held = _bytes_in(root) >> 20
                remedy = f"; it is to hold {held} MiB of files: is root.made.size too small?"
                raise SystemExit(f"{error}{remedy}") from None
        write_json(f"{work}/stamp.json", {"made": made, "size": made["bytes"]})
        put(work, home)


def _bytes_in(path: str) -> int:
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _remove(path: str) -> None:
    """Remove a folder of ours, never through a mount that stands in it."""
    held = mounts_below(path)
    if held:
        raise SystemExit(f"{path}: {held[0]} is mounted in it; unmount it first")
    with contextlib.suppress(OSError):
        remove_tree(path)


def call(command: list[str]) -> None:
    """Run a command, its phases told to the person who waits. SystemExit if it fails."""
    program = next(word for word in command if word in ("mmdebstrap", "mke2fs", "cp", "e2fsck"))
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            phase = _PHASE.match(line)
            if phase:
                say(phase.group(1))
            else:
                print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"{program}: exit code {process.returncode}")
