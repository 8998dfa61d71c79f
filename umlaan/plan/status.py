"""What ``umlaan status`` shows: the lab as wanted against one look at its machines. Pure."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from umlaan.agent import dvstables
from umlaan.model.dvs import host_tree
from umlaan.model.host import LabHost
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.model.outputs import (
    ChangeOutput,
    DvsOutput,
    HostOutput,
    KernelOutput,
    LinkOutput,
    NodeOutput,
    ProxyOutput,
    StatusOutput,
)
from umlaan.plan import node as node_plan
from umlaan.plan.access import ssh_words
from umlaan.plan.dvssides import sides
from umlaan.plan.network import shared_changes, tap_changes
from umlaan.plan.network_files import boot_changes, hosts_changes, keep_off_changes
from umlaan.plan.network_refusals import refusals, tap_refusals
from umlaan.plan.network_state import Found, Link, Wanted, wanted_of

Row = dict[str, Any]
_MOST = 3


def question(lab: Lab, host: LabHost, deadline: float) -> str:
    """What the agent's ``live`` is asked; the guests get deadline seconds to answer."""
    nodes = lab.nodes_on(host.name)
    request = node_plan.question(lab, nodes, memory=True)
    request["deadline"] = deadline
    request["guests"] = {node.name: _guest(lab, node) for node in nodes}
    dvs = lab.host_settings[host.name].dvs
    request["tables"] = dvs.programs.state_on_host(host.state_dir) if dvs else None
    request["stamps"] = {
        variant: f"{host.state_dir}/dvs/{variant}.stamp.json"
        for variant in (dvs.variants if dvs else ())
    }
    return json.dumps(request, sort_keys=True)


def _guest(lab: Lab, node: Node) -> Row:
    dvs = lab.settings(f"@uml/{node.name}").dvs
    return {
        "ssh": ssh_words(node),
        "state": dvs.programs.state if dvs else "/proc/dvs",
        "tree": dvs.dest if dvs else "/usr/src/dvs",
        "stamp": f"{node.state_dir}/dvs/ipc.stamp.json" if dvs else None,
    }


def host_output(lab: Lab, host: LabHost, found: Found, live: Row) -> HostOutput:
    """One lab host: its part of the network, and its side of the DVS."""
    wanted = wanted_of(host, lab.nodes_on(host.name), lab.peers())
    refused = refusals(wanted, found)
    changes = [*keep_off_changes(wanted, found), *shared_changes(wanted, found)]
    changes += [*hosts_changes(wanted, found), *boot_changes(wanted, found)]
    dvs = lab.host_settings[host.name].dvs
    built = live["stamps"].get("ioctl")
    tree = None
    if dvs and "ioctl" in dvs.variants:
        state: Literal["as built", "not built"] = "as built" if built else "not built"
        path = host_tree(host.state_dir)
        tree = DvsOutput(sha256=built["hash"] if built else None, path=path, state=state)
    return HostOutput(
        name=host.name,
        label=host.label,
        namespace=host.network.namespace,
        drift=tuple(refused or [change.reason for change in changes]),
        links=links(wanted, found),
        dvs=tree,
        proxies=proxies(lab, host.number, live["tables"]),
    )


def links(wanted: Wanted, found: Found) -> tuple[LinkOutput, ...]:
    """The lab's own links that are there: bridge first, then node0's, taps by node."""
    taps = {tap.name: tap.node for tap in wanted.taps}
    rows = []
    for link in found.links.values():
        kind: Literal["bridge", "tap", "node0", "other"] = "other"
        if link.name == wanted.bridge:
            kind = "bridge"
        elif link.name in taps:
            kind = "tap"
        elif link.name == wanted.node0_link:
            kind = "node0"
        elif link.alias != wanted.mark or link.name == "lo":
            continue
        rows.append(_link(link, kind, taps.get(link.name)))
    order = {"bridge": 0, "node0": 1, "tap": 2, "other": 3}
    places = {tap.name: index for index, tap in enumerate(wanted.taps)}
    rows.sort(key=lambda row: (order[row.kind], places.get(row.name, 99), row.name))
    return tuple(rows)


def _link(
    link: Link, kind: Literal["bridge", "tap", "node0", "other"], node: str | None
) -> LinkOutput:
    return LinkOutput(
        name=link.name,
        kind=kind,
        up=link.up,
        carrier=link.carrier,
        addresses=link.addresses,
        master=link.master,
        node=node,
    )


def node_output(lab: Lab, node: Node, found: Found, live: Row) -> NodeOutput:
    """One node from its lab host's look and, where it was heard, its guest's."""
    row = live["rows"].get(node.name)
    view = live["guests"].get(node.name)
    record = (row or {}).get("record") or {}
    stamp = (row or {}).get("kernel") or {}
    running = bool(row and row["running"])
    tree = dvs_output(lab, node, live, view)
    own = proxies(lab, node.number, (view or {}).get("tables", {}))
    drift = [
        *_launch_drift(lab, node, row),
        *_tap_drift(lab, node, found),
        *_tree_drift(node, tree),
        *_unheard(node, view),
    ]
    dc = (record.get("dc") or {}).get("pid") if running else None
    return NodeOutput(
        name=node.name,
        number=node.number,
        lab_host=node.host,
        state=node_plan.life(node, row),
        drift=tuple(dict.fromkeys(drift)),
        address=str(node.address),
        mac=node.mac,
        tap=node.tap,
        transport=transport_of(record.get("argv") or []) if running else None,
        kernel=KernelOutput(
            release=(row or {}).get("release") or stamp.get("release"),
            sha256=record.get("kernel_sha256") if running else stamp.get("sha256"),
            wanted_sha256=stamp.get("sha256"),
            path=node.kernel_path,
        ),
        root=node.root_path,
        root_kind="made" if node.root.made else "device",
        root_exists=bool(row and row["root_exists"]),
        dvs=tree,
        pid=(row or {}).get("pid"),
        dc=dc,
        uptime_s=(row or {}).get("uptime"),
        memory_bytes=(row or {}).get("memory"),
        console=bool(row and row["holder"]),
        guest=(view or {}).get("heard", "not asked"),
        proxies=own,
    )


def transport_of(argv: list[str]) -> Literal["tuntap", "vector"] | None:
    """The transport of a UML's command line, as it runs."""
    if any(word.startswith("vec0:") for word in argv):
        return "vector"
    return "tuntap" if any(word.startswith("eth0=tuntap") for word in argv) else None


def dvs_output(lab: Lab, node: Node, live: Row, view: Row | None) -> DvsOutput | None:
    """The DVS tree inside a node, as far as its guest was heard."""
    dvs = lab.settings(f"@uml/{node.name}").dvs
    if dvs is None:
        return None
    built = live["stamps"].get("ipc")
    if not built:
        return DvsOutput(path=dvs.dest, state="not built")
    tree = (view or {}).get("tree")
    state: Literal["as built", "differs", "missing", "not compared"] = "not compared"
    if tree and tree["missing"]:
        state = "missing"
    elif tree and tree["compared"]:
        state = "differs" if tree["bad"] else "as built"
    bad = tuple(tree["bad"]) if tree else ()
    return DvsOutput(sha256=built["hash"], path=dvs.dest, state=state, differing=bad)


def proxies(lab: Lab, number: int | None, tables: dict[str, str]) -> tuple[ProxyOutput, ...]:
    """One side's rows about the other nodes of the lab; none where it has no tables."""
    if number is None or not tables:
        return ()
    nodes = dvstables.nodes(tables.get("nodes", ""))
    found = dvstables.proxies(tables.get("proxies/info", ""))
    rows = []
    for name, _ in lab.peers():
        peer = int(name.removeprefix("node"))
        if peer == number or (peer not in nodes and peer not in found):
            continue
        row, proxy = nodes.get(peer), found.get(peer)
        rows.append(
            ProxyOutput(
                remote=peer,
                name=name,
                node_flags=row["flags"] if row else None,
                proxy_flags=proxy["flags"] if proxy else None,
                sent=row["sent"] if row else None,
                received=row["received"] if row else None,
                joined=not dvstables.unjoined(tables, peer, []),
            )
        )
    return tuple(rows)


def _launch_drift(lab: Lab, node: Node, row: Row | None) -> list[str]:
    if row is None:
        return [f"{node.name}: {node.host} does not say what it is doing"]
    try:
        launch = node_plan.wanted_launch(lab, node, row)
    except node_plan.LaunchFault as fault:
        return [str(fault)]
    reasons = node_plan.change_of(launch, row).reasons
    if not row["root_exists"]:
        reasons.append(f"{node.name}: there is no root at {node.root_path} yet")
    if node_plan.silent(node, row):
        up = f"{row['uptime']:.0f} s"
        reasons.append(f"{node.name}: is up for {up}, ssh on {node.address} does not answer")
    return reasons


def _tap_drift(lab: Lab, node: Node, found: Found) -> list[str]:
    host = lab.host(node.host)
    wanted = wanted_of(host, lab.nodes_on(host.name), lab.peers())
    tap = next(t for t in wanted.taps if t.node == node.name)
    refused = tap_refusals(wanted, tap, found)
    return refused or [change.reason for change in tap_changes(wanted, tap, found)]


def _tree_drift(node: Node, tree: DvsOutput | None) -> list[str]:
    if tree is None or tree.state not in ("differs", "missing"):
        return []
    if tree.state == "missing":
        return [f"{node.name} {tree.path}: the tree is missing"]
    names = tree.differing
    shown = ", ".join(names[:_MOST]) + (
        f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    )
    return [f"{node.name} {tree.path}: {shown} differ from what was built"]


def _unheard(node: Node, view: Row | None) -> list[str]:
    """What kept its guest's answer from being taken whole: then nothing is known of its inside."""
    fault = (view or {}).get("fault")
    return [f"{node.name}: its guest's answer is not read, it {fault}"] if fault else []


def heard(lab: Lab, host: LabHost, live: Row) -> dict[int, dict[str, str]]:
    """{node number: its DVS tables} of every side of a lab host that was heard."""
    found = {host.number: live["tables"]} if host.number is not None else {}
    for node in lab.nodes_on(host.name):
        view = live["guests"].get(node.name)
        if view and view["heard"] == "answered":
            found[node.number] = view["tables"]
    return found


def dvs_drift(lab: Lab, tables: dict[int, dict[str, str]], up: set[int]) -> dict[int, list[str]]:
    """Of each side that was heard: is its DVS there, and is it joined with each peer that is up?"""
    out: dict[int, list[str]] = {}
    for number, side in sides(lab).items():
        if number not in tables or number not in up:
            continue
        files, name = tables[number], side["name"]
        if "nodeid" not in dvstables.info(files.get("info", "")):
            out[number] = [f"{name}: its DVS is not initialised, {side['state']}/info is not there"]
            continue
        out[number] = [
            f"{name}: not joined with {peer['name']}, {'; '.join(reasons)}"
            for peer in side["peers"]
            if peer["number"] in up
            and (reasons := dvstables.unjoined(files, peer["number"], peer["dcids"]))
        ]
    return out


def status(
    lab: Lab,
    hosts: list[HostOutput],
    nodes: list[NodeOutput],
    tables: dict[int, dict[str, str]],
    at: str,
    changes: tuple[ChangeOutput, ...] | None = None,
) -> StatusOutput:
    """The whole report; changes are what a plan of everything found, None if none was made."""
    numbers = {host.name: host.number for host in lab.hosts}
    up = {node.number for node in nodes if node.state == "up"}
    up |= {number for number in numbers.values() if number is not None}
    said = dvs_drift(lab, tables, up)
    hosts = [_with(host, said.get(_number(numbers[host.name]), [])) for host in hosts]
    nodes = [_with(node, said.get(node.number, [])) for node in nodes]
    found = StatusOutput(
        lab=lab.name,
        verdict="converged",
        compared="live" if changes is None else "everything",
        at=at,
        hosts=tuple(hosts),
        nodes=tuple(nodes),
        changes=changes or (),
    )
    if found.drift() or any(node.state != "up" for node in nodes):
        return found.model_copy(update={"verdict": "drifted"})
    return found


Part = TypeVar("Part", HostOutput, NodeOutput)


def _number(number: int | None) -> int:
    # A lab host that is no node of the DVS has no drift there.
    return -1 if number is None else number


def _with(part: Part, lines: list[str]) -> Part:
    return part.model_copy(update={"drift": (*part.drift, *lines)}) if lines else part
