"""A root as a user of the procedure has one on /dev/sdb6: a Debian of their own, with sshd.

Its init is busybox's, runit keeps its services. Its network is ifupdown's, its address not that of
any node yet.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests import debian

SOURCE = Path(__file__).read_text()
MIB = 1024
LABEL = "mine"
UUID = "b7a0c3de-5f1e-4d0c-8f52-6c1b8d2e9f06"
PACKAGES = ("openssh-server", "iproute2", "iputils-ping", "ifupdown", "busybox-static", "runit")
INITTAB = """::sysinit:/etc/rc.start
::respawn:/usr/bin/runsvdir -P /etc/service
::respawn:/bin/busybox getty -n -l /bin/sh 38400 tty1
::ctrlaltdel:/bin/busybox poweroff
::shutdown:/etc/rc.stop
"""
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
    words = (*debian.recipe(arch, PACKAGES), SOURCE)
    return debian.cached(f"guest-{arch}", words, lambda path: _make(path, arch))


def _make(image: Path, arch: str) -> None:
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=".tree-") as folder:
        tree = Path(folder)
        debian.bootstrap(tree, debian.recipe(arch, PACKAGES))
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
            debian.write(tree, name, text, mode)
        # runit's package brings an sshd of its own, which ends the one that runs before it starts.
        services = tree / "etc/service"
        services.unlink(missing_ok=True)
        services.mkdir()
        init = tree / "sbin/init"
        init.unlink(missing_ok=True)
        init.symlink_to("/bin/busybox")
        words = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", UUID, "-L", LABEL, "-d", folder]
        subprocess.run([*words, str(image), f"{MIB}M"], check=True)
