"""One look into a node's root or guest: identity, DVS tree and modules in one command.

A guest's fork costs some ten milliseconds, a connection more: what a run compares is asked at once.
"""

from __future__ import annotations

import base64
import io
import re
import shlex
import tarfile
from dataclasses import dataclass, field

from umlaan.agent.bounded import size
from umlaan.agent.visible import word
from umlaan.plan import guestmodules, tree

SSHD = "usr/sbin/sshd"
INTERFACES = "etc/network/interfaces"
SSHD_SNIPPETS = "etc/ssh/sshd_config.d"
IFUP = "sbin/ifup"
NETWORKD = "lib/systemd/systemd-networkd"
NETWORK_MANAGER = "etc/NetworkManager"
SYSTEMD = "systemd"
# Of the files that are asked for: settings, a page each.
ONE_FILE, ALL_FILES, MANY = 1 << 20, 8 << 20, 10_000
_COUNT = re.compile("[0-9]{1,18}")
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


class NoLook(Exception):
    """What a node says of its files is too much, or none of that."""


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
    """What the command printed; nothing at all is a machine without any file. NoLook if neither."""
    if not output:
        return Look(empty=True)
    try:
        return _parsed(output)
    except (ValueError, IndexError, tarfile.TarError, OSError) as fault:
        raise NoLook(word(fault)) from None


def _files(data: bytes) -> dict[str, tuple[int, bytes]]:
    """The files of a tar: each is judged by its header before a byte of it is taken."""
    files: dict[str, tuple[int, bytes]] = {}
    left = ALL_FILES
    # Never a compressed one, which may be any size inside.
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for count, member in enumerate(archive):
            left -= member.size
            if not 0 <= member.size <= ONE_FILE or left < 0:
                raise NoLook(
                    f"/{word(member.name, 80)} has {member.size} bytes, "
                    f"{size(ONE_FILE)} are taken of a file and {size(ALL_FILES)} of all"
                )
            if count >= MANY or member.issparse():
                raise NoLook(f"/{word(member.name, 80)}: no file of its kind is taken")
            taken = archive.extractfile(member) if member.isreg() else None
            if taken is not None:
                files[member.name] = (member.mode & 0o7777, taken.read(ONE_FILE))
    return files


def _parsed(output: list[str]) -> Look:
    files = _files(base64.b64decode(output[0])) if output[0] else {}
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
    if len(words) != 2 or not _COUNT.fullmatch(words[0]):
        return None
    return int(words[0]), int(words[1]) if _COUNT.fullmatch(words[1]) else 1 << 40
