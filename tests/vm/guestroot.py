"""A root as a user of the procedure has one on /dev/sdb6: a Debian of their own, with sshd.

Its init is busybox's, because everything in the machine runs without acceleration, and a UML in it
twice so; runit keeps its services. Its network is ifupdown's, its address not that of any node yet.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from tests.vm.image import CACHE, bootstrap

MIB = 1024
LABEL = "mine"
UUID = "b7a0c3de-5f1e-4d0c-8f52-6c1b8d2e9f06"
PACKAGES = ("openssh-server", "iproute2", "iputils-ping", "ifupdown", "busybox-static", "runit")
# What scripts call most, of one static file: each page that a program touches costs a millisecond
# here, and a shared library has a hundred. Not where a real DVS's tables want one whole read.
APPLETS = ("awk", "cat", "mkdir", "sleep")
INITTAB = """::sysinit:/etc/rc.start
::respawn:/usr/bin/runsvdir -P /etc/service
::respawn:/bin/busybox getty -n -l /bin/sh 38400 tty1
::ctrlaltdel:/bin/busybox poweroff
::shutdown:/etc/rc.stop
"""
# A fork costs a tenth of a second and more here: as few as can be, and of a static busybox.
START = """#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox mkdir -p /dev/pts
/bin/busybox mount -a
/bin/busybox mkdir -p /run/sshd /run/network /run/runit/supervise
/bin/busybox hostname -F /etc/hostname
/sbin/ifup -a --no-scripts
# As a daemon: under respawn it has a terminal, whose hang-up makes it start anew with each login.
/usr/sbin/sshd
"""
# Who writes still keeps the root from being read-only, and its journal would be replayed.
STOP = """#!/bin/busybox sh
kill -KILL -1
/bin/busybox sync
/bin/busybox mount -o remount,ro /
"""
FSTAB = """/dev/ubda / ext4 defaults,noatime 0 1
proc /proc proc defaults 0 0
sysfs /sys sysfs defaults 0 0
devpts /dev/pts devpts gid=5,mode=620 0 0
tmpfs /run tmpfs mode=755 0 0
"""
INTERFACES = """# Mine, not umlaan's.
auto lo
iface lo inet loopback
"""


def root(arch: str = "amd64") -> Path:
    """The image, from the cache or made now (a minute)."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    path = CACHE / f"guest-{arch}-{digest}.ext4"
    if path.exists():
        return path
    for old in CACHE.glob(f"guest-{arch}-*"):
        old.unlink()
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="tree-") as folder:
        os.chmod(folder, 0o755)
        tree = Path(folder)
        bootstrap(tree, arch, PACKAGES)
        for name, text, mode in (
            ("etc/hostname", "mine\n", 0o644),
            ("etc/hosts", "127.0.0.1 localhost\n", 0o644),
            ("etc/fstab", FSTAB, 0o644),
            ("etc/network/interfaces", INTERFACES, 0o644),
            ("etc/inittab", INITTAB, 0o644),
            ("etc/rc.start", START, 0o755),
            ("etc/rc.stop", STOP, 0o755),
            ("root/a-file-of-mine", "keep this\n", 0o600),
        ):
            (tree / name).write_text(text)
            (tree / name).chmod(mode)
        # runit's package brings an sshd of its own, which ends the one that runs before it starts.
        services = tree / "etc/service"
        services.unlink(missing_ok=True)
        services.mkdir()
        if arch == "amd64":
            for name in APPLETS:
                (tree / "usr/local/bin" / name).symlink_to("/bin/busybox")
        # A login shell for every ssh command: the smaller one.
        users = tree / "etc/passwd"
        users.write_text(users.read_text().replace("/root:/bin/bash", "/root:/bin/sh"))
        init = tree / "sbin/init"
        init.unlink(missing_ok=True)
        init.symlink_to("/bin/busybox")
        beside = path.with_suffix(".new")
        beside.unlink(missing_ok=True)
        words = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", UUID, "-L", LABEL, "-d", folder]
        subprocess.run([*words, str(beside), f"{MIB}M"], check=True)
    beside.rename(path)
    return path
