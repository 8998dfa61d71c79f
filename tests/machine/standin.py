"""What a machine by systemd-nspawn lacks below its systemd: a disk with grub on it, and kernels.

Debian's own grub-mkconfig, grub-reboot and grub-editenv work there; grub-probe answers for a disk
that is not there, and a unit does at boot what grub would have done before: it takes the entry for
one boot, else the saved one, and has /proc say what that kernel would. The kernel is a tree that is
made in a second. What grub and a kernel of its own really do, tests/vm shows.
"""

from __future__ import annotations

from pathlib import Path

from tests import debian

SOURCE = Path(__file__).read_text()
PACKAGES = ("grub2-common", "grub-common")
UUID = "6f1d5c2e-0a4b-4c7e-9d53-0d1a6e5b7c01"
PROBE = f"""#!/bin/sh
while [ $# -gt 0 ]; do
    case "$1" in
    --target=*) target=${{1#*=}} ;;
    -t) target=$2 ;;
    esac
    shift
done
case "$target" in
device) echo /dev/sda1 ;;
fs) echo ext2 ;;
fs_uuid) echo {UUID} ;;
partuuid) echo 5f4dcc3b-01 ;;
partmap) echo msdos ;;
drive | compatibility_hint) echo hd0,msdos1 ;;
esac
"""
BOOT = """#!/bin/sh
# What grub does before a kernel runs, and what /proc says of that kernel.
set -e
env=/boot/grub/grubenv
value() { grub-editenv $env list | sed -n "s/^$1=//p"; }
entry=$(value next_entry)
if [ -n "$entry" ]; then grub-editenv $env unset next_entry; else entry=$(value saved_entry); fi
line=$(grep -s "umlaan.entry=$entry\\$" /boot/grub/grub.cfg) || exit 0
set -- $line
printf '%s\\n' "$line" >/run/cmdline
# grub names the file by its path on the disk, which is not the one seen in here.
echo "${2##*/vmlinuz-}" >/run/osrelease
mount --bind /run/cmdline /proc/cmdline
mount --bind /run/osrelease /proc/sys/kernel/osrelease
"""
UNIT = """[Unit]
Description=What grub and a kernel of its own would have done
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/stand-in-boot
"""
MAKEFILE = """VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 7
KCONFIG_CONFIG ?= $(O)/.config
allnoconfig olddefconfig:
\t@touch $(KCONFIG_CONFIG)
all:
\t@echo '  CC      main.o'
\t@echo a kernel >$(O)/bzImage
\t@touch $(O)/System.map $(O)/vmlinux
kernelrelease:
\t@echo 6.1.7-umlaan$(LOCALVERSION)
image_name:
\t@echo bzImage
"""


def install(tree: Path) -> None:
    """Into a machine's tree: the packages are there."""
    debian.write(tree, "usr/sbin/grub-probe", PROBE, 0o755)
    debian.write(tree, "usr/local/sbin/stand-in-boot", BOOT, 0o755)
    debian.write(tree, "etc/systemd/system/stand-in-boot.service", UNIT)
    debian.enable(tree, "stand-in-boot.service", "sysinit.target")
    debian.write(tree, "etc/default/grub", "GRUB_DISABLE_OS_PROBER=true\n")
    (tree / "boot/grub").mkdir(exist_ok=True)


def kernel_source(folder: Path) -> Path:
    """A kernel's source tree that make is through with in a second."""
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    return folder
