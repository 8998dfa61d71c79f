"""A folder that stands for a machine with grub, and the tools that umlaan calls, as small scripts.

The scripts do what grub's do to the files that matter, and log how they were called.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

UUID = "6f1d5c2e-0a4b-4c7e-9d53-0d1a6e5b7c01"
OLD = "6.1.0-56-cloud-amd64"
OLD_ENTRY = f"gnulinux-advanced-{UUID}>gnulinux-{OLD}-advanced-{UUID}"
NEW = "6.1.192-umlaan-0123abcd"
# As grub-mkconfig of Debian 12 writes it.
MENU = f"""
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-{UUID}' {{
\tload_video
\tlinux\t/boot/vmlinuz-{OLD} root=UUID={UUID} ro  net.ifnames=0
\tinitrd\t/boot/initrd.img-{OLD}
}}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-{UUID}' {{
\tmenuentry 'Debian GNU/Linux, with Linux {OLD}' $menuentry_id_option \
'gnulinux-{OLD}-advanced-{UUID}' {{
\t\tlinux\t/boot/vmlinuz-{OLD} root=UUID={UUID} ro  net.ifnames=0
\t}}
\tmenuentry 'Debian GNU/Linux, with Linux {OLD} (recovery mode)' $menuentry_id_option \
'gnulinux-{OLD}-recovery-{UUID}' {{
\t\tlinux\t/boot/vmlinuz-{OLD} root=UUID={UUID} ro single  net.ifnames=0
\t}}
}}
"""
_SET = """#!/bin/sh
echo "$(basename "$0") $*" >>"$MACHINE/calls"
f="$MACHINE/boot/grub/grubenv"
grep -v "^NAME=" "$f" >"$f.new" || true
echo "NAME=$1" >>"$f.new"
mv "$f.new" "$f"
"""
_EDITENV = """#!/bin/sh
echo "grub-editenv $*" >>"$MACHINE/calls"
[ "$2" = unset ] || exit 0
grep -v "^$3=" "$1" >"$1.new" || true
mv "$1.new" "$1"
"""
_UPDATE_GRUB = """#!/bin/sh
echo "update-grub" >>"$MACHINE/calls"
{
    cat "$MACHINE/menu"
    list="$MACHINE/state/host-kernel/entries"
    [ -r "$list" ] && [ -e "$MACHINE/etc/grub.d/42_umlaan" ] || list=/dev/null
    while read -r entry release rest; do
        echo "menuentry \\"umlaan: Linux $release\\" --class gnu-linux --id \\"$entry\\" {"
        echo "    linux /boot/vmlinuz-$release root=UUID=x ro $rest umlaan.entry=$entry"
        echo "}"
    done <"$list"
} >"$MACHINE/boot/grub/grub.cfg"
"""
_INITRAMFS = """#!/bin/sh
echo "$(basename "$0") $*" >>"$MACHINE/calls"
[ ! -e "$MACHINE/initramfs-fails" ] || { echo "E: no space left"; exit 1; }
echo made >"$MACHINE/boot/initrd.img-$3"
"""
_SAY = '#!/bin/sh\necho "$(basename "$0") $*" >>"$MACHINE/calls"\n'
_PROBE = '#!/bin/sh\n[ "$1" != --target=fs ] || cat "$MACHINE/fs"\n'


class Machine:
    """The folder, a built kernel in its state folder, and what the agent is told."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.folder = folder
        for name in ("boot/grub", "proc/sys/kernel/random", "lib/modules", "etc/grub.d", "bin"):
            (folder / name).mkdir(parents=True)
        (folder / "menu").write_text(MENU)
        (folder / "fs").write_text("ext2\n")
        (folder / "boot/grub/grub.cfg").write_text(MENU)
        (folder / "boot/grub/grubenv").write_text("# GRUB Environment Block\n")
        tools = {
            "grub-reboot": _SET.replace("NAME", "next_entry"),
            "grub-set-default": _SET.replace("NAME", "saved_entry"),
            "grub-editenv": _EDITENV,
            "grub-probe": _PROBE,
            "update-grub": _UPDATE_GRUB,
            "update-initramfs": _INITRAMFS,
            "depmod": _SAY,
        }
        for name, text in tools.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        monkeypatch.setenv("MACHINE", str(folder))
        monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
        self.boot(OLD)
        self.spec: dict[str, Any] = {
            "root": str(folder),
            "state_dir": str(folder / "state"),
            "cache": str(folder / "cache"),
            "dir": str(folder / "state/kernels/k"),
            "parameters": ["net.ifnames=0"],
            "initramfs": True,
            "panic": 10,
            "checks": [],
            "files": {"/etc/default/grub.d/umlaan.cfg": "x\n", "/etc/grub.d/42_umlaan": "y\n"},
        }

    def boot(self, release: str, entry: str = "", command_line: str = "quiet") -> None:
        """The machine as it is after a boot into an entry."""
        mark = f" umlaan.entry={entry}" if entry else ""
        (self.folder / "proc/cmdline").write_text(f"{command_line}{mark}\n")
        (self.folder / "proc/sys/kernel/osrelease").write_text(f"{release}\n")
        identity = (self.folder / "proc/sys/kernel/random/boot_id").read_text() if entry else ""
        (self.folder / "proc/sys/kernel/random/boot_id").write_text(f"{identity.strip()}1\n")

    def set_grub(self, **values: str) -> None:
        """grub's environment block."""
        lines = [f"{name}={value}\n" for name, value in values.items()]
        (self.folder / "boot/grub/grubenv").write_text("".join(lines))

    def build(self, content: str = "kernel", release: str = NEW) -> None:
        """Put a built kernel where the agent looks for it."""
        from umlaan.agent.dvstar import write_tarball
        from umlaan.agent.index import hash_file, manifest

        folder = Path(self.spec["dir"])
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("linux", "System.map", "config"):
            (folder / name).write_text(f"{name} {content}")
        stage = self.folder / "stage"
        (stage / "kernel/net").mkdir(parents=True, exist_ok=True)
        for name in ("tun.ko", "bridge.ko"):
            (stage / "kernel/net" / name).write_text(content)
        rows = manifest(str(stage), frozenset(), self.spec["cache"])
        write_tarball(str(stage), rows, str(folder / "modules.tar.gz"), release)
        stamp = {
            "key": f"key of {content} {release}",
            "release": release,
            "sha256": hash_file(str(folder / "linux")),
            "modules": "modules.tar.gz",
            "extra": ["System.map", "modules.tar.gz"],
        }
        (folder / "stamp.json").write_text(json.dumps(stamp))

    @property
    def calls(self) -> list[str]:
        """How the tools were called so far."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def grub(self) -> dict[str, str]:
        """grub's environment block as it is now."""
        lines = (self.folder / "boot/grub/grubenv").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)
