"""What a running node should be, and why it must be started or restarted.

Procedure, "ARRANCAR UML": nsenter -p -t $DC0 ./linux con0=… umid=node1 ubda=… mem=… eth0=…
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from umlaan.model.base import size_bytes
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.plan.templates import render
from umlaan.plan.verdict import NodeState

Row = dict[str, Any]
Transport = Literal["tuntap", "vector"]
# How long a running node may take to answer a look, as a part of what it may take to boot.
_REACH = 1 / 90


ROOT = "root"


class LaunchFault(Exception):
    """Why this node cannot be launched as it is declared; for its user."""


@dataclass(frozen=True)
class Launch:
    """One node as it should run."""

    node: Node
    argv: list[str]
    kernel_sha256: str | None
    dc_file: str | None
    lab: str = ""
    user: str = ROOT

    def order(self) -> Row:
        """What the agent's node-start and node-wait are told."""
        return {
            **address_of(self.node, self.dc_file),
            "argv": self.argv,
            "kernel_sha256": self.kernel_sha256,
            "tmpdir": self.node.settings.tmpdir,
            "mem": size_bytes(self.node.settings.mem),
            "deadline": self.node.settings.boot_timeout,
            "lab": self.lab,
            "user": self.user,
            "hostfs": self.node.settings.hostfs,
            "hostfs_writable": self.node.settings.hostfs_writable,
        }


@dataclass
class Change:
    """What is to be done to a node, with every reason."""

    action: Literal["none", "start", "restart"] = "none"
    reasons: list[str] = field(default_factory=list)


def dc_file(lab: Lab, node: Node) -> tuple[str | None, bool]:
    """(the DC file to look at, whether this lab makes it); no file where the host has no DVK."""
    host = lab.host_settings[node.host]
    dcid = node.settings.dcid
    if dcid is None or host.dvs is None or lab.host(node.host).number is None:
        return None, False
    programs = host.dvs.programs
    return programs.dc_file_on_host(node.state_dir, dcid), programs.dc is not None


def address_of(node: Node, dc: str | None = None) -> Row:
    """How the agent finds this node on the lab host."""
    return {
        "name": node.name,
        "dir": node.dir,
        "umid": node.umid,
        "root": node.root_path,
        "address": str(node.address),
        "namespace": node.network.namespace,
        "kernel_dir": node.kernel_dir,
        "dc_file": dc,
    }


def as_json(order: Row) -> str:
    """An order as the agent reads it."""
    return json.dumps(order, sort_keys=True)


def question(lab: Lab, nodes: tuple[Node, ...], memory: bool = False, reach: bool = True) -> Row:
    """What the agent is asked about several nodes of one lab host at once."""
    return {
        "nodes": [address_of(node, dc_file(lab, node)[0]) for node in nodes],
        "memory": memory,
        "reach": max([1.0, *(n.settings.boot_timeout * _REACH for n in nodes)]) if reach else 0,
    }


def transport_of(node: Node, stamp: Row | None) -> Transport:
    """tuntap or vector, as the kernel has it. LaunchFault if it has not what was asked for."""
    known = node.kernel.transports or (stamp or {}).get("transports")
    wanted = node.settings.transport
    if wanted == "auto":
        return "vector" if known and "tuntap" not in known else "tuntap"
    if known and wanted not in known:
        raise LaunchFault(
            f"node.transport: {wanted} is not in {node.name}'s kernel; it has {', '.join(known)}"
        )
    return wanted


def interface_of(transport: str) -> str:
    """What templates/launch.j2 calls the guest's interface, and so its kernel."""
    return "vec0" if transport == "vector" else "eth0"


def command_line(node: Node, transport: Transport) -> list[str]:
    """The kernel and its words, from templates/launch.j2."""
    text = render("launch.j2", node=node, settings=node.settings, transport=transport)
    return [node.kernel_path, *[line for line in text.split("\n") if line]]


def wanted_launch(lab: Lab, node: Node, row: Row | None) -> Launch:
    """How a node should run, given what the lab host has. LaunchFault if it cannot."""
    stamp = (row or {}).get("kernel")
    path, made_here = dc_file(lab, node)
    dc = (row or {}).get("dc")
    if path and not made_here and dc and dc["fault"] == "missing":
        # Nobody makes a DC here: the procedure's command line without nsenter.
        path = None
    argv = command_line(node, transport_of(node, stamp))
    user = node.settings.user or lab.host(node.host).user
    return Launch(node, argv, (stamp or {}).get("sha256"), path, lab.name, user)


def how_it_ended(record: Row | None) -> str:
    """Why a node is down, as far as it is known."""
    if record is None:
        return "it was never launched"
    end = record.get("exit")
    if end is None:
        # The agent clears the pid of a record of another boot.
        gone = record.get("pid") is None and record.get("started_at") is not None
        return "it is down (the lab host was started anew)" if gone else "it is down (killed)"
    code = end.get("code")
    if code is None or code == 0:
        return "it is down (shut down)"
    if code in (134, -6):
        return "it is down (its kernel panicked)"
    return (
        f"it is down (killed by signal {-code})" if code < 0 else f"it is down (exit code {code})"
    )


def _words(argv: list[str]) -> dict[str, str]:
    out = {}
    for word in argv[1:]:
        key, sign, value = word.partition("=")
        out[key] = value if sign else ""
    return out


def word_differences(old: list[str], new: list[str]) -> list[str]:
    """Each argument that differs, as ``mem 512M → 1024M``; their order does not count."""
    before, after = _words(old), _words(new)
    rows = []
    for key in dict.fromkeys([*before, *after]):
        if key not in after:
            rows.append(f"{_word(key, before[key])} goes")
        elif key not in before:
            rows.append(f"{_word(key, after[key])} comes")
        elif before[key] != after[key]:
            rows.append(f"{key} {before[key]} → {after[key]}")
    return rows


def _word(key: str, value: str) -> str:
    return f"{key}={value}" if value else key


def differences(launch: Launch, row: Row) -> list[str]:
    """Why a running node is not the wanted one; empty if it is."""
    record = row["record"]
    rows = []
    ran, wanted = record.get("kernel_sha256"), launch.kernel_sha256
    if wanted is not None and ran != wanted:
        rows.append(f"kernel {ran[:12] if ran else 'unknown'} → {wanted[:12]}")
    rows += word_differences(record["argv"], launch.argv)
    if record.get("root_id") and row.get("root_id") and record["root_id"] != row["root_id"]:
        rows.append(f"{launch.node.root_path} was replaced by another one")
    if not record.get("adopted") and record.get("namespace") != launch.node.network.namespace:
        old, new = record.get("namespace"), launch.node.network.namespace
        rows.append(f"network namespace {old or 'of the host'} → {new or 'of the host'}")
    rows += _dc_difference(launch, row)
    rows += _confinement_difference(launch, record)
    return rows


def _confinement_difference(launch: Launch, record: Row) -> list[str]:
    rows = []
    # Launched by a version that knew no other user.
    ran = record.get("user") or ROOT
    if ran != launch.user:
        rows.append(f"user {ran} → {launch.user}")
    wanted = launch.node.settings.hostfs_writable
    was = bool(record.get("hostfs_writable"))
    if launch.node.settings.hostfs and launch.user != ROOT and was != wanted:
        words = {False: "read-only", True: "writable"}
        rows.append(f"hostfs {words[was]} → {words[wanted]}")
    return rows


def notice(launch: Launch) -> str | None:
    """What a user should know of a node that the data has run unconfined."""
    if launch.user != ROOT:
        return None
    return (
        f"{launch.node.name}: runs as root on its lab host (node.user): who is root in the guest "
        "can become root there"
    )


def _dc_difference(launch: Launch, row: Row) -> list[str]:
    if row["record"].get("adopted"):
        return []
    then = row["record"].get("dc")
    if launch.dc_file is None:
        return [f"PID namespace of DC {then['pid']} → the host's"] if then else []
    now = row.get("dc") or {}
    if now.get("fault"):
        # Not there yet: the DVS stage makes it, and the next look decides.
        return []
    if then is None:
        return [f"the host's PID namespace → that of DC {now['pid']}"]
    if [then["pid"], then["start"]] != [now["pid"], now["start"]]:
        return [f"the DC's init {then['pid']} → {now['pid']}"]
    return []


def change_of(launch: Launch, row: Row) -> Change:
    """What is to be done so that the node runs as wanted, with every reason."""
    name = launch.node.name
    if not row["running"]:
        return Change("start", [f"{name}: start, {how_it_ended(row['record'])}"])
    reasons = [f"{name}: restart, {text}" for text in differences(launch, row)]
    return Change("restart", reasons) if reasons else Change()


def unnoted(launch: Launch, row: Row) -> bool:
    """True where the next boot of the lab host would start a node otherwise than now, or not."""
    return "noted" in row and row["noted"] != launch.order()


def silent(node: Node, row: Row) -> bool:
    """True for a node that is up but whose sshd did not answer."""
    return bool(row["running"] and row.get("answers") is False)


def life(node: Node, row: Row | None) -> NodeState:
    """One word for what a node is, from the agent's row (asked with reach)."""
    if row is None:
        return "absent"
    if row["running"]:
        if row.get("answers") is not False:
            return "up"
        return "booting" if row["uptime"] < node.settings.boot_timeout else "unreachable"
    # A user's partition is there before umlaan comes and after it went.
    if row["record"] is None and (node.root.made is None or not row["root_exists"]):
        return "absent"
    code = ((row["record"] or {}).get("exit") or {}).get("code")
    return "failed" if code not in (None, 0) else "down"
