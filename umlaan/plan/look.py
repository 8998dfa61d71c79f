"""One look into a node's root or guest: identity, DVS tree and modules in one command.

A guest's fork costs some ten milliseconds, a connection more: what a run compares is asked at once.
"""

from __future__ import annotations

import base64
import io
import shlex
import tarfile
from dataclasses import dataclass, field

from umlaan.plan import guestmodules, tree

SSHD = "usr/sbin/sshd"
INTERFACES = "etc/network/interfaces"
SSHD_SNIPPETS = "etc/ssh/sshd_config.d"
IFUP = "sbin/ifup"
NETWORKD = "lib/systemd/systemd-networkd"
NETWORK_MANAGER = "etc/NetworkManager"
SYSTEMD = "systemd"
# Whether these are there decides how a user's root becomes a node.
PROBES = (SSHD, SSHD_SNIPPETS, IFUP, NETWORKD, NETWORK_MANAGER, "etc/os-release")
# A superset of what umlaan may write in a root: one question serves all.
ASKED = (
    "etc/inittab",
    "etc/umlaan",
    "etc/fstab",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "etc/ssh/sshd_config",
    "etc/ssh/sshd_config.d/umlaan.conf",
    "etc/ssh/umlaan_host_ed25519_key",
    "etc/ssh/umlaan_host_ed25519_key.pub",
    INTERFACES,
    "etc/network/interfaces.d",
    "etc/systemd/network/05-umlaan.network",
    "etc/systemd/system/ctrl-alt-del.target",
    "etc/systemd/system/multi-user.target.d/umlaan.conf",
    "etc/systemd/system/getty@tty1.service.d/umlaan.conf",
    "etc/NetworkManager/conf.d/umlaan.conf",
)


@dataclass(frozen=True)
class Look:
    """What a node holds: {path: (mode, bytes)} of the files asked for, and what else is there."""

    files: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    exists: frozenset[str] = frozenset()
    tree: tree.Rows = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    modules: dict[str, guestmodules.Release] = field(default_factory=dict)
    empty: bool = False

    @property
    def systemd(self) -> bool:
        """True where the root's init is systemd."""
        return SYSTEMD in self.exists


def script(dest: str | None) -> str:
    """The command; dest is where the DVS tree stands, None without one."""
    lines = [
        # One connection, few processes: tar and base64 carry any bytes, the rest the shell itself.
        f"cd /; tar --ignore-failed-read -chf - {' '.join(ASKED)} 2>/dev/null | base64 -w0; echo",
        f"for f in {' '.join(PROBES)}; do [ ! -e $f ] || echo has $f; done",
        f"[ ! sbin/init -ef lib/systemd/systemd ] || echo has {SYSTEMD}",
        guestmodules.script(),
        "echo tree",
    ]
    return "\n".join([*lines, tree.listing_script(dest) if dest else "echo", "true"])


def parse(output: list[str]) -> Look:
    """What the command printed; nothing at all is a machine without any file."""
    if not output:
        return Look(empty=True)
    files: dict[str, tuple[int, bytes]] = {}
    if output[0]:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(output[0]))) as archive:
            for member in archive:
                taken = archive.extractfile(member) if member.isfile() else None
                if taken is not None:
                    files[member.name] = (member.mode & 0o7777, taken.read())
    exists, leftovers = set(), []
    modules: dict[str, guestmodules.Release] = {}
    rows: tree.Rows = {}
    lines = iter(output[1:])
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "has":
            exists.add(rest)
        elif word == "modules":
            name, release = guestmodules.parse(rest)
            modules[name] = release
        elif word == "left":
            leftovers.append(rest)
        elif word == "tree":
            rows = tree.parse_listing(base64.b64decode(next(lines, "")))
    return Look(files, frozenset(exists), rows, tuple(leftovers), modules)


def space_script(path: str) -> str:
    """Free bytes and inodes of the file system that holds a path, or will."""
    return (
        f'd={shlex.quote(path)}; while [ ! -d "$d" ]; do d=${{d%/*}}; d=${{d:-/}}; done; '
        'df -B1 --output=avail,iavail "$d"'
    )


def parse_space(output: list[str]) -> tuple[int, int] | None:
    """(bytes, inodes), None where nothing was said; "-" for inodes: they never run out."""
    words = output[-1].split() if output else []
    if len(words) != 2 or not words[0].isdigit():
        return None
    return int(words[0]), int(words[1]) if words[1].isdigit() else 1 << 40
