"""The identity of a guest: the files by which a root becomes nodeN, and why they are written.

In a root that umlaan made they are whole files; ``umlaan.plan.userroot`` has those of a user's.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from dataclasses import dataclass
from typing import Any, Literal

from umlaan.agent import blocks
from umlaan.agent.dvsservices import service_links
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.plan.dvssides import Side, files_of
from umlaan.plan.look import Look
from umlaan.plan.templates import render

MARK = "umlaan (edits between these two lines are lost)"
# Not beside the file: in folders like sshd_config.d or interfaces.d a copy would be read, too.
BACKUPS = "var/backups/umlaan"
KEY = "etc/ssh/umlaan_host_ed25519_key"


@dataclass(frozen=True)
class GuestFile:
    """One file of the guest: its path below the root, mode, text, and how it takes effect.

    kind: whole (text is all of it), block (a marked block on top of a user's file) or edited (text
    is a user's whole file, changed). apply is run in a guest that is up.
    """

    path: str
    mode: int
    text: str
    kind: Literal["whole", "block", "edited"] = "whole"
    apply: str = ""


@dataclass(frozen=True)
class Secrets:
    """The lab's keys as the lab host holds them."""

    authorised_key: str
    host_key: str
    host_key_public: str


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
        "nameservers": [str(address) for address in network.nameservers],
        "hostfs": node.settings.hostfs,
        "authorised_key": secrets.authorised_key,
        "console_root": node.settings.console_root,
    }


_HUP = "kill -HUP $(cat /run/sshd.pid)"


def made_files(given: dict[str, Any], secrets: Secrets) -> list[GuestFile]:
    """All files of a root that umlaan made."""

    def text(name: str) -> str:
        return render(f"guest/{name}.j2", **given)

    name = given["node"]["name"]
    files = [
        GuestFile("etc/inittab", 0o644, text("inittab"), apply="kill -HUP 1"),
        GuestFile("etc/umlaan/boot", 0o755, text("umlaan/boot")),
        GuestFile(
            "etc/umlaan/network",
            0o644,
            text("umlaan/network"),
            apply="ip -force -batch /etc/umlaan/network",
        ),
        GuestFile("etc/umlaan/hooks", 0o755, text("umlaan/hooks")),
        GuestFile("etc/umlaan/services", 0o755, text("umlaan/services")),
        GuestFile("etc/umlaan/shutdown", 0o755, text("umlaan/shutdown")),
        GuestFile("etc/fstab", 0o644, text("fstab")),
        GuestFile("etc/hostname", 0o644, text("hostname"), apply=f"hostname {name}"),
        GuestFile("etc/hosts", 0o644, text("hosts")),
        GuestFile("etc/ssh/sshd_config.d/umlaan.conf", 0o644, text("sshd_config"), apply=_HUP),
        GuestFile("etc/umlaan/authorized_keys", 0o644, text("authorized_keys")),
        GuestFile(KEY, 0o600, secrets.host_key, apply=_HUP),
        GuestFile(f"{KEY}.pub", 0o644, secrets.host_key_public),
    ]
    if given["nameservers"]:
        # Without any, what stands there is the user's (resolvconf, a DHCP client).
        files.append(GuestFile("etc/resolv.conf", 0o644, text("resolv.conf")))
    return files


def service_files(side: Side | None) -> list[GuestFile]:
    """The DVS's scripts in a root that umlaan made and that is stopped: its boot starts them.

    What is written here is written by processes of the lab host, ten times as fast as a guest's.
    """
    if side is None:
        return []
    texts = files_of(side, "runit").items()
    return [GuestFile(path.lstrip("/"), 0o755, text) for path, text in texts]


@dataclass(frozen=True)
class Edit:
    """One file to write, why, and whether the user's version must be kept first."""

    file: GuestFile
    text: str
    reason: str
    backup: bool


def edits(node: Node, wanted: list[GuestFile], found: Look) -> list[Edit]:
    """What differs, with its reason; empty where nothing does."""
    out = []
    for file in wanted:
        mode, content = found.files.get(file.path, (None, b""))
        before = content.decode(errors="surrogateescape")
        text = file.text
        if file.kind == "block":
            text = blocks.with_block(before, MARK, file.text.splitlines(), on_top=True)
        # A user's file keeps its own mode; only what umlaan writes whole has one to keep.
        same_mode = mode == file.mode or file.kind != "whole"
        if mode is not None and before == text and same_mode:
            continue
        if mode is None:
            why = "is missing"
        elif before == text:
            why = f"has mode {mode:o}, not {file.mode:o}"
        else:
            why = "differs"
        foreign = node.root.made is None and mode is not None and "umlaan" not in file.path
        reason = f"{node.name} /{file.path}: write, it {why}"
        out.append(Edit(file, text, reason, foreign))
    return out


def size_of(changes: list[Edit]) -> int:
    """Bytes that the new files, their parcel and the backups take at most."""
    return sum(3 * len(edit.text.encode(errors="surrogateescape")) + 3 * 4096 for edit in changes)


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


# It holds the host key: where only root looks and writes.
PARCEL = "/root/.umlaan-identity.tar"
# On the file system of what it replaces, so that a rename is enough.
BESIDE = "/etc/.umlaan-new"
# Writes through a link of the user's, and keeps the first version of a file for good.
_PLACE = """\
place() { # path, what stands there: whole, block or edited
    t="/$1"
    [ ! -h "$t" ] || t=$(readlink -f "$t") || t="/$1"
    [ -d "${t%/*}" ] || mkdir -p "${t%/*}"
    if [ "$2" != whole ] && [ -e "$t" ]; then
        chmod --reference="$t" "$new/$1"; chown --reference="$t" "$new/$1"
    fi
    mv -f "$new/$1" "$t"
}
keep() {
    b="/$backups/$1"
    # Renamed, so that a copy that was cut off is never taken for the first version.
    [ -e "$b" ] || { mkdir -p "${b%/*}"; cp -aL "/$1" "$b.new" && mv -f "$b.new" "$b"; }
}"""


def install_script(changes: list[Edit], side: Side | None = None) -> str:
    """Unpack beside, keep backups, rename each into place, make it take effect if the node runs."""
    lines = [
        "set -e",
        f"backups={BACKUPS}",
        f"new={BESIDE}",
        f"trap 'rm -rf {BESIDE} {PARCEL}' EXIT",
        "rm -rf $new",
        "mkdir -m 700 $new",
        f'tar -xpf {PARCEL} --no-same-owner -C "$new"',
        _PLACE,
    ]
    for edit in changes:
        path = shlex.quote(edit.file.path)
        if edit.backup:
            lines.append(f"keep {path}")
        lines.append(f"place {path} {edit.file.kind}")
    if side is not None:
        lines += [*service_links(side), "true"]
    lines.append("sync")
    applies = list(dict.fromkeys(edit.file.apply for edit in changes if edit.file.apply))
    if applies:
        # A chroot has no init whose state could be behind the files.
        inner = "; ".join(f"{command} || true" for command in applies)
        lines.append(f"[ -e /run/umlaan-chroot ] || {{ {inner}; }}")
    return "\n".join(lines)
