"""From the lab's model and what its nodes are doing now to a bench: sides, kernels, hashes, MTU.

What is written into a row is read from the machine: the kernel that runs, not the one wanted.
"""

from __future__ import annotations

import json
import re
import shlex
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umlaan.agent import dcfile
from umlaan.agent.index import manifest_hash
from umlaan.agent.visible import word
from umlaan.measure.bench import Bench, Peer
from umlaan.measure.cases import Place
from umlaan.measure.ledger import End, Kernel
from umlaan.measure.programs import Tree
from umlaan.measure.sides import Done, LocalSide, Side, SideError, SshSide
from umlaan.model.dvs import GUEST_RUN, Dvs, host_run, host_tree
from umlaan.model.host import LabHost
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.plan.access import lending_words, ssh_options, ssh_words
from umlaan.plan.node import interface_of

Rows = Mapping[str, Mapping[str, Any]]
_DC = re.compile(r"^\s*(?:export\s+)?DC\d*=['\"]?(\d+)", re.MULTILINE)
_RECORD = "--- {} ---"


class NotMeasurable(Exception):
    """The lab as it is cannot be measured; the message says what to do."""


def assemble(
    lab: Lab,
    rows: Rows,
    via: Mapping[str, Sequence[str]],
    only: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> tuple[Bench, list[Place], list[str]]:
    """(bench, the nodes that take part, those that do not, each with its reason).

    rows are the agent's of each node; via is how each lab host is reached, empty for this machine;
    only are names of nodes, all without. NotMeasurable where fewer than two are up.
    """
    peers: dict[int, Peer] = {}
    left_out: list[str] = []
    carriers: dict[str, Side] = {}
    first = lab.hosts[0]
    for host in lab.hosts:
        carriers[host.name] = LocalSide(host.label, None, via[host.name])
        if host.number is not None and _wanted(host.label, only):
            peers[host.number] = _host_peer(lab, host, via[host.name])
    for node in lab.nodes:
        if not _wanted(node.name, only):
            continue
        row = rows.get(node.name)
        if not row or not row.get("running") or not row.get("answers"):
            state = "is not up" if not row or not row.get("running") else "does not answer"
            left_out.append(f"{node.name} {state}")
            continue
        peers[node.number] = _node_peer(lab, node, row, carriers[node.host], via[node.host])
    unknown = set(only) - {h.label for h in lab.hosts} - {n.name for n in lab.nodes}
    if unknown:
        raise NotMeasurable(f"{min(unknown)}: no such node in the inventory")
    if len(peers) < 2:
        why = f" ({'; '.join(left_out)})" if left_out else ""
        raise NotMeasurable(f"two nodes or more must be up{why}; bring the lab up: umlaan up")
    settings = lab.settings(first.name)
    dvs = _dvs(lab, first.name)
    bench = Bench(
        measure=settings.measure,
        dvs=dvs,
        peers=peers,
        run=uuid.uuid4().hex[:12],
        lab=lab.name,
        host=first.name,
        say=say,
        load=lambda: float(_asked(carriers[first.name], "cat /proc/loadavg").split()[0]),
        cpus=int(_asked(carriers[first.name], "nproc")),
    )
    places = [Place(number, peer.end.place) for number, peer in sorted(peers.items())]
    return bench, places, left_out


def _wanted(name: str, only: Sequence[str]) -> bool:
    return not only or name in only


def _dvs(lab: Lab, name: str) -> Dvs:
    dvs = lab.settings(name).dvs
    if dvs is None:
        raise NotMeasurable(f"{name}: dvs: None: there are no programs to measure with")
    return dvs


def _asked(side: Side, script: str, timeout: float = 30) -> str:
    done: Done = side.run(script, timeout)
    if done.code:
        raise SideError(f"{side.name}: {script[:60]}: {done.last_line}")
    return done.output


def _parts(side: Side, commands: Mapping[str, str]) -> dict[str, str]:
    """The outputs of several commands in one go; of one that fails, nothing."""
    script = "; ".join(
        f"echo; echo {shlex.quote(_RECORD.format(name))}; {{ {command}; }} 2>/dev/null"
        for name, command in commands.items()
    )
    parts: dict[str, str] = {}
    name = ""
    for line in _asked(side, f"{script}; true", 60).splitlines():
        found = re.fullmatch(r"--- (\w+) ---", line)
        if found:
            name = found.group(1)
            parts[name] = ""
        elif name:
            parts[name] += f"{line}\n"
    return parts


def _dc_line(dcid: int, path: str) -> str:
    return f"{dcfile.READ}\ndc_pid {dcid} {shlex.quote(path)} && echo DC{dcid}=$pid"


def _host_peer(lab: Lab, host: LabHost, via: Sequence[str]) -> Peer:
    settings, dvs = lab.settings(host.name), _dvs(lab, host.name)
    programs, dcid = dvs.programs, settings.node.dcid or 0
    dc_file = programs.dc_file_on_host(host.state_dir, dcid)
    side = LocalSide(host.label, host.network.namespace, via)
    folder = host_tree(host.state_dir)
    found = _parts(
        side,
        {
            "release": "uname -r",
            "dc": _dc_line(dcid, dc_file) if dc_file else ":",
            "stamp": f"cat {shlex.quote(folder)}.stamp.json",
        },
    )
    pid = _DC.search(found["dc"])
    assert host.number is not None
    return Peer(
        side=side,
        end=End(
            node=host.number,
            name=host.label,
            place="host",
            kernel=Kernel(release=found["release"].strip()),
            dvs_sha256=_manifest(found["stamp"]),
        ),
        address=str(host.network.node_address(host.number)),
        tree=Tree(
            folder,
            programs.state_on_host(host.state_dir),
            host_run(host.state_dir),
            dcid,
            dc_pid=int(pid.group(1)) if pid else None,
            nsenter=True,
        ),
        mtu=host.network.mtu,
    )


def _node_peer(
    lab: Lab, node: Node, row: Mapping[str, Any], carrier: Side, via: Sequence[str]
) -> Peer:
    dvs = _dvs(lab, node.host)
    record = row.get("record") or {}
    transport = transport_of(record.get("argv") or [])
    side = SshSide(node.name, ssh_words(node), via)
    interface = interface_of(transport)
    guest = _parts(side, {"release": "uname -r", "mtu": f"cat /sys/class/net/{interface}/mtu"})
    # The user's own root may hold a tree that umlaan did not put there: then its hash is unknown.
    stamp = f"{node.state_dir}/dvs/ipc.stamp.json"
    kept = _parts(
        carrier,
        {
            "config": f"sha256sum {shlex.quote(node.kernel_dir)}/config",
            "built": f"cat {shlex.quote(node.kernel_dir)}/stamp.json",
            "stamp": f"cat {shlex.quote(stamp)}",
        },
    )
    running = record.get("kernel_sha256")
    same = running is not None and _json(kept["built"]).get("sha256") == running
    return Peer(
        side=side,
        end=End(
            node=node.number,
            name=node.name,
            place="uml",
            kernel=Kernel(
                release=word(guest.get("release", "").strip(), 64),
                sha256=running,
                config_sha256=kept["config"][:64] if same and kept["config"] else None,
            ),
            dvs_sha256=_manifest(kept["stamp"]),
        ),
        address=str(node.address),
        tree=Tree(dvs.dest, dvs.programs.state, GUEST_RUN, node.settings.dcid or 0),
        transport=transport,
        mtu=_number(guest.get("mtu", "")) or node.network.mtu,
        ssh=tuple(ssh_options(node)),
        target=f"root@{node.address}",
        lent=SshSide(node.name, lending_words(node), via),
    )


def transport_of(argv: Sequence[str]) -> str:
    """The transport of a UML's command line, as it runs."""
    if any(re.match(r"vec\d+:", word) for word in argv):
        return "vector"
    return "tuntap" if any(re.match(r"eth\d+=tuntap", word) for word in argv) else "unknown"


def _number(text: str) -> int | None:
    """A small number that a guest says; None for anything else."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,9}\s*", text, re.ASCII) else None


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _manifest(text: str) -> str | None:
    rows = _json(text).get("manifest")
    return manifest_hash(rows) if isinstance(rows, dict) and rows else None
