"""The identity of a guest: the files by which a root becomes nodeN, and why they are written.

In a root that umlaan made they are whole files. In a user's root what umlaan needs stands in marked
blocks or in files of its own, each file that is edited keeps a backup from before the first time.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import Any, Literal

from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.plan.templates import render

BEGIN = "# BEGIN umlaan: written by umlaan, edits in this block are lost"
END = "# END umlaan"
BACKUP = ".umlaan-backup"
SSHD = "usr/sbin/sshd"
INTERFACES = "etc/network/interfaces"
SYSTEMD = "etc/systemd/system"
SSHD_SNIPPETS = "etc/ssh/sshd_config.d"


@dataclass(frozen=True)
class GuestFile:
    """One file of the guest: its path below the root, mode, text, and how it takes effect."""

    path: str
    mode: int
    text: str
    kind: Literal["whole", "block"] = "whole"
    apply: str = ""


@dataclass(frozen=True)
class Secrets:
    """The lab's keys as the lab host holds them."""

    authorised_key: str
    host_key: str
    host_key_public: str


@dataclass(frozen=True)
class Found:
    """What the root holds: {path: (mode, bytes)} of the files asked for, and which paths exist."""

    files: dict[str, tuple[int, bytes]]
    exists: frozenset[str]


def values(lab: Lab, node: Node, interface: str, secrets: Secrets) -> dict[str, Any]:
    """What the guest's templates may name."""
    network = node.network
    return {
        "node": {
            "name": node.name,
            "number": node.number,
            "address": str(node.address),
            "prefix": network.address.network.prefixlen,
            "netmask": str(network.address.network.netmask),
            "gateway": str(network.gateway) if network.gateway else None,
            "interface": interface,
        },
        "peers": [(address, name) for name, address in lab.peers() if name != node.name],
        "hostfs": node.settings.hostfs,
        "authorised_key": secrets.authorised_key,
        "console_root": node.settings.console_root,
    }


_KEY = "etc/ssh/umlaan_host_ed25519_key"
_HUP = "kill -HUP $(cat /run/sshd.pid)"


def made_files(given: dict[str, Any], secrets: Secrets) -> list[GuestFile]:
    """All files of a root that umlaan made."""

    def text(name: str) -> str:
        return render(f"guest/{name}.j2", **given)

    name = given["node"]["name"]
    return [
        GuestFile("etc/inittab", 0o644, text("inittab"), apply="kill -HUP 1"),
        GuestFile("etc/umlaan/boot", 0o755, text("umlaan/boot")),
        GuestFile(
            "etc/umlaan/network",
            0o644,
            text("umlaan/network"),
            apply="ip -force -batch /etc/umlaan/network",
        ),
        GuestFile("etc/umlaan/hooks", 0o755, text("umlaan/hooks")),
        GuestFile("etc/umlaan/shutdown", 0o755, text("umlaan/shutdown")),
        GuestFile("etc/fstab", 0o644, text("fstab")),
        GuestFile("etc/hostname", 0o644, text("hostname"), apply=f"hostname {name}"),
        GuestFile("etc/hosts", 0o644, text("hosts")),
        GuestFile("etc/ssh/sshd_config.d/umlaan.conf", 0o644, text("sshd_config"), apply=_HUP),
        GuestFile("etc/umlaan/authorized_keys", 0o644, text("authorized_keys")),
        GuestFile(_KEY, 0o600, secrets.host_key, apply=_HUP),
        GuestFile(f"{_KEY}.pub", 0o644, secrets.host_key_public),
    ]


def user_files(given: dict[str, Any], secrets: Secrets, exists: frozenset[str]) -> list[GuestFile]:
    """The least that makes a user's own root a node: names, address, a way in."""
    network = "user/interfaces" if INTERFACES in exists else "user/networkd"
    files = [
        GuestFile("etc/hostname", 0o644, render("guest/hostname.j2", **given)),
        GuestFile("etc/hosts", 0o644, render("guest/user/hosts.j2", **given), "block"),
        GuestFile("etc/umlaan/authorized_keys", 0o644, f"{secrets.authorised_key}\n"),
        GuestFile(_KEY, 0o600, secrets.host_key),
        GuestFile(f"{_KEY}.pub", 0o644, secrets.host_key_public),
    ]
    text = render(f"guest/{network}.j2", **given)
    if INTERFACES in exists:
        files.append(GuestFile(INTERFACES, 0o644, text, "block"))
    else:
        files.append(GuestFile("etc/systemd/network/05-umlaan.network", 0o644, text))
    sshd = render("guest/user/sshd_config.j2", **given)
    if SSHD_SNIPPETS in exists:
        files.append(GuestFile(f"{SSHD_SNIPPETS}/umlaan.conf", 0o644, sshd))
    else:
        files.append(GuestFile("etc/ssh/sshd_config", 0o644, sshd, "block"))
    return files


PROBES = (SSHD, INTERFACES, SYSTEMD, SSHD_SNIPPETS)
# A superset of what made_files and user_files may name: one question serves both.
ASKED = (
    "etc/inittab",
    "etc/umlaan",
    "etc/fstab",
    "etc/hostname",
    "etc/hosts",
    "etc/ssh/sshd_config",
    "etc/ssh/sshd_config.d/umlaan.conf",
    _KEY,
    f"{_KEY}.pub",
    INTERFACES,
    "etc/systemd/network/05-umlaan.network",
)


def with_block(before: str, block: str) -> str:
    """The text with its marked block replaced, or put in front where there is none."""
    whole = f"{BEGIN}\n{block.rstrip()}\n{END}\n"
    start = before.find(BEGIN)
    if start < 0:
        return whole + before
    stop = before.find(END, start)
    # A block that lost its end is taken to be only its first line: nothing of the user's is cut.
    rest = (
        before[stop + len(END) :].removeprefix("\n")
        if stop >= 0
        else before[start:].split("\n", 1)[-1]
    )
    return before[:start] + whole + rest


@dataclass(frozen=True)
class Edit:
    """One file to write, why, and whether the user's version must be kept first."""

    file: GuestFile
    text: str
    reason: str
    backup: bool


def edits(node: Node, wanted: list[GuestFile], found: Found) -> list[Edit]:
    """What differs, with its reason; empty where nothing does."""
    out = []
    for file in wanted:
        mode, content = found.files.get(file.path, (None, b""))
        before = content.decode(errors="surrogateescape")
        text = with_block(before, file.text) if file.kind == "block" else file.text
        # A user's file keeps its own mode; only what umlaan writes whole has one to keep.
        same_mode = mode == file.mode or file.kind == "block"
        if mode is not None and before == text and same_mode:
            continue
        if mode is None:
            why = "is missing"
        elif before == text:
            why = f"has mode {mode:o}, not {file.mode:o}"
        else:
            why = "differs"
        foreign = node.root.made is None and mode is not None and BEGIN not in before
        reason = f"{node.name} /{file.path}: write, it {why}"
        out.append(Edit(file, text, reason, foreign and "umlaan" not in file.path))
    return out


def as_tar(changes: list[Edit]) -> bytes:
    """The new files as one tar, for one upload."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for edit in changes:
            data = edit.text.encode(errors="surrogateescape")
            info = tarfile.TarInfo(edit.file.path)
            info.size, info.mode = len(data), edit.file.mode
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PARCEL = "/var/tmp/umlaan-identity.tar"


def install_script(changes: list[Edit]) -> str:
    """Unpack beside, keep backups, rename each into place, make it take effect if the node runs."""
    lines = [
        "set -e",
        "new=$(mktemp -d /var/tmp/umlaan-new.XXXXXX)",
        'trap \'rm -rf "$new" ' + PARCEL + "' EXIT",
        f'tar -xpf {PARCEL} --no-same-owner -C "$new"',
    ]
    for edit in changes:
        path = edit.file.path
        folder = path.rpartition("/")[0]
        lines.append(f"mkdir -p /{folder}")
        if edit.backup:
            lines.append(f"[ -e /{path}{BACKUP} ] || cp -a /{path} /{path}{BACKUP}")
        if edit.file.kind == "block":
            lines.append(f'[ ! -e /{path} ] || chmod --reference=/{path} "$new"/{path}')
        lines.append(f'mv -f "$new"/{path} /{path}')
    lines.append("sync")
    applies = list(dict.fromkeys(edit.file.apply for edit in changes if edit.file.apply))
    if applies:
        # A chroot has no init whose state could be behind the files.
        inner = "; ".join(f"{command} || true" for command in applies)
        lines.append(f"[ -e /run/umlaan-chroot ] || {{ {inner}; }}")
    return "\n".join(lines)
