"""A user's own root: the least that makes it a node, in marked blocks and files of umlaan's own.

Whatever its init (systemd, sysvinit) and whatever sets up its network (ifupdown, systemd-networkd).
"""

from __future__ import annotations

import re
from typing import Any

from umlaan.agent import blocks
from umlaan.model.node import Node
from umlaan.plan.guest import KEY, MARK, GuestFile, Secrets
from umlaan.plan.look import (
    IFUP,
    INTERFACES,
    NETWORK_MANAGER,
    NETWORKD,
    SSHD,
    SSHD_SNIPPETS,
    Look,
)
from umlaan.plan.templates import render

# Put in front of a line of the user's that would set up the node's interface otherwise.
OUT = "#umlaan# "
_RELOAD = "systemctl reload ssh 2>/dev/null || service ssh reload"
_STANZA = re.compile(r"(iface|auto|allow-\S+|mapping|source\S*|no-\S+|rename|template)\b")
_HARDWARE = re.compile(r"^(/dev/(?:[shv]d[a-z]|nvme|mmcblk|mapper/)\S*)\s+(\S+)\s+(\S+)\s+(\S+)")
HALT = "/sbin/shutdown -t1 -a -h -P now"
CONSOLE = "/sbin/agetty --autologin root --noclear 38400 tty1 linux"
# Debian's own size of openssh-server with what it needs, and apt's lists.
SSHD_BYTES = 250_000_000


def refusal(node: Node, found: Look) -> str | None:
    """Why this root cannot become a node; None if it can."""
    where = f"{node.name}: {node.root_path}"
    if SSHD not in found.exists and not node.root.install_sshd:
        return (
            f"{where} has no sshd, so umlaan could not enter the guest; "
            "root.install_sshd: True installs openssh-server there"
        )
    if IFUP not in found.exists and not (NETWORKD in found.exists and found.systemd):
        return (
            f"{where} has neither ifupdown nor systemd with systemd-networkd, so it cannot be "
            "given its address; install ifupdown in it"
        )
    return None


def files(given: dict[str, Any], secrets: Secrets, found: Look) -> list[GuestFile]:
    """All that umlaan writes in a user's root, in view of what is there."""
    name = given["node"]["name"]
    hostname = render("guest/hostname.j2", **given)
    rows = [
        GuestFile("etc/hostname", 0o644, hostname, apply=f"hostname {name}"),
        GuestFile("etc/hosts", 0o644, render("guest/user/hosts.j2", **given), "block"),
        GuestFile("etc/umlaan/authorized_keys", 0o644, f"{secrets.authorised_key}\n"),
        GuestFile(KEY, 0o600, secrets.host_key, apply=_RELOAD),
        GuestFile(f"{KEY}.pub", 0o644, secrets.host_key_public),
        _sshd(given, found),
        *_network(given, found),
        *_init(given, found),
    ]
    if given["hostfs"]:
        rows.append(GuestFile("etc/fstab", 0o644, render("guest/user/fstab.j2", **given), "block"))
    return rows


def text_of(found: Look, path: str) -> str:
    """A file of the root as text; empty where there is none."""
    return found.files.get(path, (0, b""))[1].decode(errors="surrogateescape")


def _sshd(given: dict[str, Any], found: Look) -> GuestFile:
    text = render("guest/user/sshd_config.j2", **given)
    includes = re.search(
        r"^\s*Include\s+.*/etc/ssh/sshd_config\.d/\*\.conf",
        text_of(found, "etc/ssh/sshd_config"),
        re.MULTILINE | re.IGNORECASE,
    )
    if SSHD_SNIPPETS in found.exists and includes:
        return GuestFile(f"{SSHD_SNIPPETS}/umlaan.conf", 0o644, text, apply=_RELOAD)
    return GuestFile("etc/ssh/sshd_config", 0o644, text, "block", apply=_RELOAD)


def _network(given: dict[str, Any], found: Look) -> list[GuestFile]:
    own = given["node"]
    apply = f"ip address replace {own['address']}/{own['prefix']} brd + dev {own['interface']}"
    if IFUP in found.exists:
        return _ifupdown(given, found, apply)
    text = render("guest/user/networkd.j2", **given)
    rows = [
        GuestFile("etc/systemd/network/05-umlaan.network", 0o644, text, apply=apply),
        GuestFile(
            "etc/systemd/system/multi-user.target.d/umlaan.conf",
            0o644,
            render("guest/user/multi-user.j2", **given),
        ),
    ]
    if NETWORK_MANAGER in found.exists:
        text = render("guest/user/networkmanager.j2", **given)
        rows.append(GuestFile(f"{NETWORK_MANAGER}/conf.d/umlaan.conf", 0o644, text))
    return rows


def _ifupdown(given: dict[str, Any], found: Look, apply: str) -> list[GuestFile]:
    """A stanza of the user's that says the same stands; others for the interface are put out."""
    own = given["node"]
    block = render("guest/user/interfaces.j2", **given).splitlines()
    texts = {
        path: blocks.without(text_of(found, path), MARK)
        for path in (INTERFACES, *found.files)
        if path == INTERFACES or path.startswith(f"{INTERFACES}.d/")
    }
    if any(settled(text, own) for text in texts.values()):
        return []
    rows = []
    for path, text in texts.items():
        wanted = without_stanzas(text, own["interface"])
        if path == INTERFACES:
            wanted = blocks.with_block(wanted, MARK, block, on_top=True)
        elif wanted == text:
            continue
        rows.append(GuestFile(path, 0o644, wanted, "edited", apply))
    return rows


def stanzas(text: str) -> list[tuple[str, list[int]]]:
    """(first line's words, numbers of its lines) of each stanza of an interfaces file."""
    out: list[tuple[str, list[int]]] = []
    for number, line in enumerate(text.split("\n")):
        words = line.split("#", 1)[0].strip()
        if _STANZA.match(words):
            out.append((" ".join(words.split()), [number]))
        elif words and out:
            out[-1][1].append(number)
    return out


def settled(text: str, own: dict[str, Any]) -> bool:
    """True where the user's own stanza gives the interface this very address, statically."""
    lines = text.split("\n")
    brought_up = mine = False
    for head, numbers in stanzas(text):
        words = head.split()
        if words[0] in ("auto", "allow-hotplug") and own["interface"] in words[1:]:
            brought_up = True
        if words[:3] != ["iface", own["interface"], "inet"]:
            continue
        if words[3:4] != ["static"] or mine:
            return False
        options = dict(
            (lines[n].split(None, 1) + [""])[:2] for n in numbers[1:] if lines[n].strip()
        )
        address, _, prefix = options.get("address", "").strip().partition("/")
        mask = prefix or options.get("netmask", "").strip()
        if address != own["address"] or mask not in (str(own["prefix"]), own["netmask"]):
            return False
        mine = True
    return mine and brought_up


def without_stanzas(text: str, interface: str) -> str:
    """The text with each IPv4 stanza of the interface put out, line by line, to be put back."""
    lines = text.split("\n")
    for head, numbers in stanzas(text):
        if head.split()[:3] == ["iface", interface, "inet"]:
            for number in numbers:
                lines[number] = f"{OUT}{lines[number]}"
    return "\n".join(lines)


def _init(given: dict[str, Any], found: Look) -> list[GuestFile]:
    """mconsole's cad powers off, so that a stop ends cleanly; a console that is root if wanted."""
    if found.systemd:
        unit = "etc/systemd/system"
        rows = [
            GuestFile(
                f"{unit}/ctrl-alt-del.target",
                0o644,
                render("guest/user/ctrl-alt-del.j2", **given),
                apply="systemctl daemon-reload",
            )
        ]
        if given["console_root"]:
            text = render("guest/user/getty.j2", **given)
            rows.append(GuestFile(f"{unit}/getty@tty1.service.d/umlaan.conf", 0o644, text))
        return rows
    lines = _inittab_lines(blocks.without(text_of(found, "etc/inittab"), MARK), given)
    if not lines:
        return []
    return [GuestFile("etc/inittab", 0o644, lines, "block", apply="telinit q")]


def _inittab_lines(text: str, given: dict[str, Any]) -> str:
    """sysvinit takes the first entry of an id: ours stand on top, under the ids of the user's."""
    out = ""
    for line in text.split("\n"):
        fields = line.split(":", 3)
        if len(fields) < 4 or line.startswith("#") or not fields[0]:
            continue
        name, levels, action, command = fields
        if action == "ctrlaltdel":
            out += f"{name}:{levels}:ctrlaltdel:{HALT}\n"
        elif action == "respawn" and given["console_root"] and re.search(r"\btty1\b", command):
            out += f"{name}:{levels}:respawn:{CONSOLE}\n"
    return out


def notes(node: Node, found: Look) -> list[str]:
    """What a user should know of a root that is about to become a node."""
    lines = []
    for line in text_of(found, "etc/fstab").split("\n"):
        match = _HARDWARE.match(line)
        if match and match[2] != "/" and not re.search(r"\b(nofail|noauto)\b", match[4]):
            lines.append(
                f"{node.name}: /etc/fstab names {match[1]} for {match[2]}, which the guest may "
                "not have: its boot would wait for it; add nofail there, or the disk to node.disks"
            )
    return lines
