"""A lab host's own Debian: systemd, sshd, nothing that wakes up in the middle of a test."""

from __future__ import annotations

from pathlib import Path

from tests import debian
from tests.machine import standin
from umlaan.plan import toolchain

SOURCE = Path(__file__).read_text()
PACKAGES = (
    *("systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "python3", "procps"),
    *("e2fsprogs", *standin.PACKAGES),
    # What umlaan would install on a lab host: the machine has no way out.
    *toolchain.ALWAYS,
    *toolchain.INSTALL_KERNEL,
)
RECIPE = debian.recipe("amd64", PACKAGES)
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "systemd-timesyncd.service"),
    *("systemd-networkd-wait-online.service", "console-getty.service", "getty@.service"),
    # They belong to the kernel, which is not the machine's own.
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-sysctl.service"),
    "grub-common.service",
)
# Another network card of the machine's, with the address that the procedure's host has.
LAN = """[NetDev]
Name=eth1
Kind=veth

[Peer]
Name=lan1
"""
LAN_UP = """[Match]
Name=eth1

[Network]
Address=192.168.1.100/24
LinkLocalAddressing=no
"""
WIRE = """[Match]
Name=lan1

[Network]
LinkLocalAddressing=no
"""


def tree() -> Path:
    """The folder, from the cache or made now (half a minute)."""
    return debian.cached("machine", (*RECIPE, SOURCE, standin.SOURCE), _make)


def _make(folder: Path) -> None:
    debian.bootstrap(folder, RECIPE)
    debian.write(folder, "etc/fstab", "")
    debian.write(
        folder, "etc/ssh/sshd_config.d/umlaan-test.conf", "UseDNS no\nGSSAPIAuthentication no\n"
    )
    debian.write(folder, "etc/systemd/network/20-eth1.netdev", LAN)
    debian.write(folder, "etc/systemd/network/20-eth1.network", LAN_UP)
    debian.write(folder, "etc/systemd/network/20-lan1.network", WIRE)
    debian.without(folder, MASKED)
    standin.install(folder)
    debian.enable(folder, "systemd-networkd.service")
