"""node0's disk, made without a mount: Debian with systemd, sshd and grub, in a cache by content.

mmdebstrap makes the tree, ``mke2fs -d`` the file system; grub's first stages are laid into the gap
before the partition. The first boot is the Debian kernel's, by a grub.cfg of the image's own; what
needs a running machine (update-grub) is done there, by whoever starts it.

It runs without acceleration, so that it has nothing that a boot through grub does not need.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import debian
from umlaan.plan import toolchain

SOURCE = Path(__file__).read_text()
SECTOR = 512
FIRST = 2048  # the partition's first sector; grub's core image lies before it
DISK_MIB = 3072
ROOT_UUID = "6f1d5c2e-0a4b-4c7e-9d53-0d1a6e5b7c01"
# Debian's kernel for a machine, the smallest of its architecture.
KERNELS = {"amd64": "linux-image-cloud-amd64", "i386": "linux-image-686-pae"}
# What umlaan would install on a lab host is there: the machine has no way out.
PACKAGES = (
    *("systemd-sysv", "udev", "openssh-server", "python3", "lz4", "grub-pc", "e2fsprogs"),
    *toolchain.ALWAYS,
    *toolchain.INSTALL_KERNEL,
)
# sd probes its disks side by side, whatever the order they were found in, and takes a name in each
# probe. So the initramfs knows the drivers of the system's disk only: where it is sda, a data disk
# that has another driver is sdb.
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ext4")
# Nothing here may wait for a network or wake up in the middle of a test, or costs seconds there.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "systemd-timesyncd.service", "man-db.timer"),
    *("systemd-networkd-wait-online.service", "grub-common.service", "getty.target"),
    *("systemd-logind.service", "systemd-update-utmp.service", "systemd-random-seed.service"),
    *("systemd-tmpfiles-clean.timer", "systemd-journal-flush.service", "systemd-pstore.service"),
    *("systemd-update-utmp-runlevel.service", "dev-hugepages.mount", "dev-mqueue.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "proc-sys-fs-binfmt_misc.automount"),
)
NETWORK = """[Match]
Name=eth0

[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
"""
GRUB_DEFAULTS = """GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="net.ifnames=0 console=ttyS0,115200"
GRUB_TERMINAL="serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
"""
FIRST_MENU = """serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=0
search --no-floppy --fs-uuid --set=root {uuid}
menuentry "first boot" {{
    linux /vmlinuz root=UUID={uuid} ro net.ifnames=0 console=ttyS0,115200
    initrd /initrd.img
}}
"""


def recipe(arch: str) -> tuple[str, ...]:
    return debian.recipe(arch, (KERNELS[arch], *PACKAGES))


def image(arch: str = "amd64") -> Path:
    """The raw disk, from the cache or made now (a minute)."""
    public = debian.ssh_key().with_suffix(".pub").read_text()
    words = (*recipe(arch), public, SOURCE)
    return debian.cached(f"node0-{arch}", words, lambda path: _make(path, arch))


def _make(path: Path, arch: str) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tree-") as folder:
        tree = Path(folder)
        debian.bootstrap(tree, recipe(arch))
        _configure(tree)
        _disk(tree, path)


def _configure(tree: Path) -> None:
    debian.write(tree, "etc/hostname", "node0\n")
    debian.write(tree, "etc/hosts", "127.0.0.1 localhost\n127.0.1.1 machine0\n")
    debian.write(tree, "etc/fstab", f"UUID={ROOT_UUID} / ext4 noatime 0 0\n")
    debian.write(tree, "etc/systemd/network/10-eth0.network", NETWORK)
    debian.write(tree, "etc/default/grub", GRUB_DEFAULTS)
    debian.write(
        tree, "etc/initramfs-tools/conf.d/test", "COMPRESS=lz4\nMODULES=list\nRESUME=none\n"
    )
    debian.write(tree, "etc/initramfs-tools/modules", "\n".join(MODULES) + "\n")
    sshd = "UseDNS no\nGSSAPIAuthentication no\nUsePAM no\n"
    debian.write(tree, "etc/ssh/sshd_config.d/umlaan-test.conf", sshd)
    debian.let_in(tree)
    debian.without(tree, MASKED)
    debian.enable(tree, "systemd-networkd.service")
    grub = tree / "boot/grub"
    (grub / "i386-pc").mkdir(parents=True, exist_ok=True)
    for source in (tree / "usr/lib/grub/i386-pc").iterdir():
        if source.suffix in (".mod", ".lst"):
            shutil.copy(source, grub / "i386-pc")
    (grub / "grub.cfg").write_text(FIRST_MENU.format(uuid=ROOT_UUID))
    subprocess.run(["grub-editenv", str(grub / "grubenv"), "create"], check=True)
    subprocess.run(["chroot", str(tree), "update-initramfs", "-u"], check=True)


def _disk(tree: Path, path: Path) -> None:
    """One MBR partition with the tree, grub's boot sector before it, grub's core in the gap."""
    with path.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    table = f"label: dos\nstart={FIRST}, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", str(path)], input=table, text=True, check=True)
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", ROOT_UUID, "-d", str(tree)]
    words += ["-E", f"offset={FIRST * SECTOR}", str(path)]
    subprocess.run([*words, f"{(DISK_MIB << 10) - FIRST * SECTOR // 1024}k"], check=True)
    core = path.with_suffix(".core")
    modules = ["biosdisk", "part_msdos", "ext2", "search_fs_uuid", "normal"]
    words = ["grub-mkimage", "-O", "i386-pc", "-d", str(tree / "usr/lib/grub/i386-pc")]
    words += ["-p", "(hd0,msdos1)/boot/grub", "-o", str(core), *modules]
    subprocess.run(words, check=True)
    embedded = core.read_bytes()
    core.unlink()
    assert len(embedded) < (FIRST - 1) * SECTOR
    boot = (tree / "usr/lib/grub/i386-pc/boot.img").read_bytes()
    with path.open("r+b") as file:
        # The last bytes of the sector hold the partition table.
        file.write(boot[:440])
        # boot.img looks for the core image in sector 1, the core image for its rest behind it.
        file.seek(SECTOR)
        file.write(embedded)


if __name__ == "__main__":
    print(image(*sys.argv[1:]))
