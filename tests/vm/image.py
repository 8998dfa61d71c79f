"""node0's disk, made without a mount: Debian with systemd, sshd and grub, in a cache by content.

mmdebstrap makes the tree, ``mke2fs -d`` the file system; grub's first stages are laid into the gap
before the partition. The first boot is the Debian kernel's, by a grub.cfg of the image's own; what
needs a running machine (update-grub) is done there, by whoever starts it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from umlaan.agent import apt

CACHE = Path.home() / ".cache" / "umlaan" / "vm"
SECTOR = 512
FIRST = 2048  # the partition's first sector; grub's core image lies before it
DISK_MIB = 5120
ROOT_UUID = "6f1d5c2e-0a4b-4c7e-9d53-0d1a6e5b7c01"
SUITE = "bookworm"
# Debian's kernel for a machine, the smallest of its architecture.
KERNELS = {"amd64": "linux-image-cloud-amd64", "i386": "linux-image-686-pae"}
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "openssh-server", "openssh-client", "python3"),
    *("iproute2", "iputils-ping", "kmod", "initramfs-tools", "lz4", "grub-pc", "e2fsprogs"),
    *("bubblewrap", "util-linux", "procps", "libpam-systemd"),
)
MODULES = ("virtio_pci", "virtio_scsi", "sd_mod", "ext4")
# Nothing here may wait for a network or wake up in the middle of a test.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "systemd-timesyncd.service", "man-db.timer"),
    *("systemd-networkd-wait-online.service", "grub-common.service"),
)
NETWORK = """[Match]
Name=eth0

[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
"""
LAN = """[Match]
Name=eth1

[Network]
Address=192.168.1.100/24
LinkLocalAddressing=no
"""
GRUB_DEFAULTS = """GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="net.ifnames=0 console=tty0 console=ttyS0,115200"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
"""
FIRST_MENU = """serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=0
search --no-floppy --fs-uuid --set=root {uuid}
menuentry "first boot" {{
    linux /vmlinuz root=UUID={uuid} ro net.ifnames=0 console=ttyS0,115200
    initrd /initrd.img
}}
"""


def key() -> str:
    """What the image depends on: this file."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def ssh_key() -> Path:
    """The key pair that enters the machine, made once."""
    path = CACHE / "ssh" / "id_ed25519"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "umlaan-test-vm"]
        subprocess.run([*words, "-f", str(path)], check=True)
    return path


def image(arch: str = "amd64") -> Path:
    """The raw disk, from the cache or made now (two minutes)."""
    public = ssh_key().with_suffix(".pub").read_text()
    known = hashlib.sha256(public.encode()).hexdigest()[:8]
    path = CACHE / f"node0-{arch}-{key()}-{known}.raw"
    if path.exists():
        return path
    for old in CACHE.glob(f"node0-{arch}-*.raw*"):
        old.unlink()
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="tree-") as folder:
        # The root of the tree becomes the root of the machine: its mode is seen there.
        os.chmod(folder, 0o755)
        tree = Path(folder)
        bootstrap(tree, arch, (KERNELS[arch], *PACKAGES))
        _configure(tree, public)
        beside = path.with_suffix(".raw.new")
        _disk(tree, beside)
    beside.rename(path)
    return path


def bootstrap(tree: Path, arch: str, packages: tuple[str, ...]) -> None:
    """A Debian without documentation in an empty folder."""
    words = ["nice", "-n", "10", "mmdebstrap", "--quiet", "--variant=minbase"]
    # The kernel under us runs i386 as well; mmdebstrap would ask another tool whether it does.
    words += [f"--architectures={arch}", "--skip=check/qemu,output/dev"]
    words.append(f"--include={','.join(packages)}")
    for name in ("doc", "man", "locale", "info"):
        words.append(f"--dpkgopt=path-exclude=/usr/share/{name}/*")
    # A machine's other sources need not carry the architecture.
    words += [SUITE, str(tree), f"deb {apt.mirror()} {SUITE} main"]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def _configure(tree: Path, public: str) -> None:
    def write(name: str, text: str, mode: int = 0o644) -> None:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    write("etc/hostname", "node0\n")
    write("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 machine0\n")
    write("etc/fstab", f"UUID={ROOT_UUID} / ext4 noatime 0 1\n")
    write("etc/systemd/network/10-eth0.network", NETWORK)
    write("etc/systemd/network/20-eth1.network", LAN)
    write("etc/default/grub", GRUB_DEFAULTS)
    # sd probes its disks side by side, whatever the order they were found in, and takes a name in
    # each probe. So the initramfs knows the driver of this one disk only: it is sda by the time
    # that its file system is mounted, and the data disk's driver is loaded from there.
    write("etc/initramfs-tools/conf.d/umlaan-test", "COMPRESS=lz4\nMODULES=list\n")
    write("etc/initramfs-tools/modules", "\n".join(MODULES) + "\n")
    write("root/.ssh/authorized_keys", public, 0o600)
    (tree / "root/.ssh").chmod(0o700)
    write("etc/ssh/sshd_config.d/umlaan-test.conf", "UseDNS no\nGSSAPIAuthentication no\n")
    units = tree / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    for name, folder in (
        ("systemd-networkd.service", "multi-user.target.wants"),
        ("serial-getty@ttyS0.service", "getty.target.wants"),
    ):
        (units / folder).mkdir(exist_ok=True)
        link = units / folder / name
        link.unlink(missing_ok=True)
        template = f"{name.partition('@')[0]}@.service" if "@" in name else name
        link.symlink_to(f"/lib/systemd/system/{template}")
    grub = tree / "boot/grub"
    (grub / "i386-pc").mkdir(parents=True, exist_ok=True)
    for source in (tree / "usr/lib/grub/i386-pc").iterdir():
        if source.suffix in (".mod", ".lst"):
            shutil.copy(source, grub / "i386-pc")
    (grub / "grub.cfg").write_text(FIRST_MENU.format(uuid=ROOT_UUID))
    subprocess.run(["grub-editenv", str(grub / "grubenv"), "create"], check=True)
    subprocess.run(["chroot", str(tree), "update-initramfs", "-u"], check=True)
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(tree / folder, ignore_errors=True)
        (tree / folder / "partial").mkdir(parents=True)


def _disk(tree: Path, path: Path) -> None:
    """One MBR partition with the tree, grub's boot sector before it, grub's core in the gap."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    table = f"label: dos\nstart={FIRST}, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", str(path)], input=table, text=True, check=True)
    make_ext4(path, FIRST, (DISK_MIB << 20) // SECTOR - FIRST, tree, ROOT_UUID)
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


def make_ext4(disk: Path, start: int, sectors: int, tree: Path, uuid: str) -> None:
    """An ext4 inside a disk image, from sector start on, filled from a tree."""
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", uuid, "-d", str(tree)]
    words += ["-E", f"offset={start * SECTOR}"]
    subprocess.run([*words, str(disk), f"{sectors * SECTOR // 1024}k"], check=True)


if __name__ == "__main__":
    CACHE.mkdir(parents=True, exist_ok=True)
    print(image(*sys.argv[1:]))
