"""grub on the lab host, read and judged: its menu, its environment, whether a trial is safe here.

Nothing here changes anything; the trial itself is in ``umlaan.agent.boot``.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import subprocess
from typing import Any

from umlaan.agent.chamber import BuildError
from umlaan.agent.machine import MARK, at, read

TOOLS = ("grub-editenv", "grub-reboot", "grub-set-default", "update-grub")


def environment(spec: dict[str, Any]) -> dict[str, str]:
    """grub's environment block: saved_entry, next_entry and the like."""
    lines = read(at(spec, "/boot/grub/grubenv")).splitlines()
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name: value for name, equals, value in pairs if equals}


_ENTRY = re.compile(r"^\s*(menuentry|submenu)\s+(?:'([^']*)'|\"([^\"]*)\")(.*)\{\s*$")
_ID = re.compile(r"(?:--id|\$menuentry_id_option)\s+(?:'([^']+)'|\"([^\"]+)\")")


def entries(text: str) -> dict[str, str]:
    """{id, submenus before it with >: its linux line} of a grub.cfg; without an id its title."""
    found: dict[str, str] = {}
    open_: list[str] = []
    for line in text.splitlines():
        if match := _ENTRY.match(line):
            named = _ID.search(match[4])
            open_.append((named[1] or named[2]) if named else (match[2] or match[3]))
            if match[1] == "menuentry":
                found[">".join(open_)] = ""
        elif open_ and line.strip() == "}":
            open_.pop()
        elif open_ and (words := line.split()) and words[0] in ("linux", "linux16", "linuxefi"):
            found[">".join(open_)] = " ".join(words[1:])
    return found


def entry_of_release(menu: dict[str, str], release: str) -> str | None:
    """The entry that boots a release for certain: the most deeply named, no recovery one."""
    good = [
        name
        for name, line in menu.items()
        if line.split(" ")[0].endswith(f"vmlinuz-{release}")
        and not {"single", "recovery"} & set(line.split())
        and MARK not in line
    ]
    return max(good, key=lambda name: name.count(">"), default=None)


def release_of(line: str) -> str:
    """The release that an entry's linux line boots; empty where its image's name has none."""
    image = os.path.basename(line.split(" ")[0])
    return image.removeprefix("vmlinuz-") if image.startswith("vmlinuz-") else ""


def menu(spec: dict[str, Any]) -> dict[str, str]:
    """The entries that grub offers now."""
    return entries(read(at(spec, "/boot/grub/grub.cfg")))


def grub(spec: dict[str, Any]) -> str | None:
    """In words why grub cannot be used here; None where it can."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}: this machine does not boot by grub, or lacks grub2-common"
    if not os.path.exists(at(spec, "/boot/grub/grub.cfg")):
        return "/boot/grub/grub.cfg is not there: run update-grub once"
    if not os.path.exists(at(spec, "/boot/grub/grubenv")):
        return "/boot/grub/grubenv is not there: run grub-editenv create once"
    return another_labs(spec)


def list_path(spec: dict[str, Any]) -> str:
    """The list that the script in /etc/grub.d reads: an entry a line."""
    return f"{spec['state_dir']}/host-kernel/entries"


def list_of(text: str) -> str | None:
    """The list that a script of umlaan's in /etc/grub.d reads; None where it is no such script."""
    line = next((row for row in text.splitlines() if row.startswith("list=")), None)
    return next(iter(shlex.split(line[5:])), None) if line else None


def another_labs(spec: dict[str, Any]) -> str | None:
    """In words that grub serves another lab, which both its script and its list say."""
    for path in spec["files"]:
        other = list_of(read(at(spec, path)))
        if other and other != list_path(spec) and os.path.exists(other):
            return (
                f"{path} offers the host kernels of another lab ({other}): a machine has one host "
                "kernel; destroy that lab, or leave host_kernel out of this one"
            )
    return None


# Reads what grub-mkconfig does, up to the file after ours that sets another default.
_DEFAULTS = """
for path; do
    if [ -z "$path" ]; then ours=1 GRUB_DEFAULT=saved; continue; fi
    [ ! -r "$path" ] || . "$path" >/dev/null 2>&1
    [ -z "$ours" ] || [ "$GRUB_DEFAULT" = saved ] || { echo "$path"; exit; }
done
"""


def overruled(spec: dict[str, Any]) -> str | None:
    """The file in /etc/default/grub.d that sets GRUB_DEFAULT after ours; None where none does."""
    ours = next(p for p in spec["files"] if p.startswith("/etc/default/"))
    paths = sorted({*glob.glob(f"{glob.escape(at(spec, os.path.dirname(ours)))}/*.cfg")})
    before = [path for path in paths if path < at(spec, ours)]
    after = [path for path in paths if path > at(spec, ours)]
    if not after:
        return None
    words = ["sh", "-c", _DEFAULTS, "sh", at(spec, "/etc/default/grub"), *before, "", *after]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return done.stdout.decode(errors="replace").strip() or None


def check_default(spec: dict[str, Any]) -> None:
    """BuildError where grub would not boot its saved default: then nothing is tried only once."""
    if path := overruled(spec):
        raise BuildError(
            f"{path} sets GRUB_DEFAULT after umlaan.cfg: grub would not boot its saved default, so "
            "that there would be no way back to the old kernel. Take that line out, or name the "
            "file so that it is read before"
        )


# A variable of the firmware's: four bytes of attributes, then 1 where Secure Boot is on.
_SECURE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def check_loads(spec: dict[str, Any]) -> None:
    """BuildError where grub loads signed kernels only: it would wait at its menu, for a person."""
    try:
        with open(at(spec, _SECURE), "rb") as file:
            on = file.read()[4:5] == b"\1"
    except OSError:
        return
    if on:
        raise BuildError(
            "Secure Boot is on: grub loads no kernel that is not signed, and would wait at its "
            "menu instead of going back to the old one. Switch Secure Boot off in the firmware"
        )


# Where grub can read but not write: it could not forget the entry that it tries.
_UNWRITABLE = {"btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs"}


def check_writable(spec: dict[str, Any]) -> None:
    """BuildError where grub cannot write its environment: a trial would be tried for ever."""
    for target in ("fs", "abstraction"):
        words = ["grub-probe", f"--target={target}", at(spec, "/boot/grub")]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        found = done.stdout.decode(errors="replace").split()
        bad = found if target == "abstraction" else sorted(_UNWRITABLE & set(found))
        if bad:
            raise BuildError(
                f"/boot/grub is on {', '.join(bad)}, where grub cannot write: it could not forget "
                "the kernel that it tries once; a /boot of its own (ext4) is needed"
            )
