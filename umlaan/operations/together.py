"""Nodes whose proxies connect only if all of them start anew, stopped before their launch.

Where the lab host is a side itself, its proxies end only with it: it is rebooted, if it may be.

Procedure, "ARRANCAR DVS EN HOST Y UML": both sides are started by hand there, one after the other.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyinfra import logger
from pyinfra.context import host as context_host
from pyinfra.context import state as context_state

from umlaan.facts.base import NoAnswer
from umlaan.facts.node import node_rows
from umlaan.model.node import Node
from umlaan.operations import dvsup, pending, reboot
from umlaan.operations.common import chosen, executing, kept, lab, why
from umlaan.operations.node import stop_commands
from umlaan.operations.operation import operation
from umlaan.plan import dvssides, together
from umlaan.plan import dvsup as dvsup_plan
from umlaan.plan import node as node_plan
from umlaan.plan.dvssides import Side

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand, StringCommand

    Commands = Generator[StringCommand, None, None]


@dataclass
class Anew:
    """What one look at the whole lab found: why its nodes start anew, and those that run."""

    reasons: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    # What a node's root lacks of the scripts that it is to start with.
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)


@operation()
def ended(node: Node) -> Commands:
    """
    Stop a node whose proxies, like its peers', connect only if all nodes start anew together.

    Where ``dvs.programs.proxy_restart`` is "lab": a peer was killed, or is about to be restarted,
    or a proxy has to be ended. The launch starts it again. Nothing where a machine is a side of the
    DVS, or where the run is limited to some of the nodes: the pairs then say what they lack.

    + node: the node
    """
    found = _found()
    if not found.reasons or node.name not in found.running:
        return
    why(f"{node.name}: restart it with the others, {_first(found.reasons)}")
    if node.name in found.orders:
        yield dvsup.agent_order("write", found.orders[node.name])
    yield from stop_commands(node)


@operation()
def rebooted(number: int) -> Generator[PyinfraCommand, None, None]:
    """
    Reboot the lab host where its own proxies have to be ended: nothing less ends them.

    A peer's UML was killed or is about to be restarted, or the lab host's own scripts or DVS
    differ. Only with ``reboot: when_needed``, all nodes in the run, and systemd to bring the DVS
    back; else the pairs say what they lack. Its nodes are stopped before; their launch starts them.

    + number: the lab host's node number
    """
    side = dvssides.sides(lab()).get(number)
    if side is None or side["carrier"] in pending.kernels(context_state) or not reboot.allowed():
        return
    found = _look(machine=side)
    if not found.reasons:
        return
    if failed := reboot.failed():
        why_not = f"not rebooted, {', '.join(failed)} failed in this run"
        text = f"{side['name']}: {why_not}: {_first(found.reasons)}"
        logger.warning(f"{context_host.print_prefix}{text}")
        return
    why(f"{side['name']}: reboot it, its proxies end with it: {_first(found.reasons)}")
    for order in found.orders.values():
        yield dvsup.agent_order("write", order)
    yield from reboot.again()
    dvsup.seen().spoil([each["name"] for each in dvssides.sides(lab()).values()])
    yield dvsup.agent_order("up", dvsup_plan.Change(kind="systemd").order(side))


def _first(reasons: list[str]) -> str:
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f"{reasons[0]}{more}"


def _found() -> Anew:
    """The look of this run; the first node that asks makes it, the others wait for it."""
    known: dict[bool, Anew] = kept(context_state, "anew", dict)
    with kept(context_state, "anew_lock", threading.Lock):
        if executing() not in known:
            known[executing()] = _look()
    return known[executing()]


def _look(machine: Side | None = None) -> Anew:
    """The whole lab's nodes and sides as they are; machine: the side that is to be rebooted."""
    sides = dvssides.sides(lab())
    together_all = together.with_a_machine(sides) if machine else together.applies(sides)
    if not together_all and not machine:
        return Anew()
    rows: dict[str, Any] = {}
    for host in lab().hosts:
        on = context_state.inventory.get_host(host.name)
        try:
            rows.update(node_rows(on, lab(), lab().nodes_on(host.name)))
        except NoAnswer as error:
            # Nodes start anew together or not at all: not while one of them cannot be asked.
            logger.warning(f"{context_host.print_prefix}no proxies are ended: {error}")
            return Anew()
    up = [n for n, row in rows.items() if row["running"] and row.get("answers") is not False]
    asked = [s for s in sides.values() if s["name"] in up or (machine and s["place"] == "host")]
    views = {name: view for name, view in dvsup.views_of(asked).items() if view["answers"]}
    if machine and views.get(machine["name"], {"kind": None})["kind"] != "systemd":
        return Anew()
    uptimes = {name: rows[name]["uptime"] if name in rows else _age(name) for name in views}
    lost = together.lost(sides, views, _starting(rows), uptimes) if together_all else []
    out = Anew(lost, up)
    for side in sides.values():
        if side["name"] not in views or not (together_all or side["place"] == "host"):
            continue
        change = dvsup_plan.change(lab(), side, views[side["name"]])
        if change.stuck() or change.reinit:
            out.reasons.append(change.reasons[0])
        if change.files or change.gone:
            out.orders[side["name"]] = change.order(side)
    return out if machine or all(_acts(name) for name in up) else Anew()


def _age(machine: str) -> float:
    """Of a machine's proxies, in seconds: since its boot, long ago, if not since this very run."""
    return 0.0 if machine in dvsup.begun() else math.inf


def _acts(name: str) -> bool:
    """Whether a node is among those of this run, and has not failed in it."""
    host = f"@uml/{name}"
    return chosen(host) and not any(each.name == host for each in context_state.failed_hosts)


def _starting(rows: dict[str, Any]) -> dict[str, str]:
    """The nodes that this run is about to start or restart, with what is said of each."""
    out = {}
    for node in lab().nodes:
        row = rows.get(node.name)
        if row is None or not _acts(node.name):
            continue
        try:
            change = node_plan.change_of(node_plan.wanted_launch(lab(), node, row), row)
        except node_plan.LaunchFault:
            continue
        if change.action != "none":
            out[node.name] = change.reasons[0]
        elif node_plan.silent(node, row) and row["uptime"] >= node.settings.boot_timeout:
            # In a plan; when the run comes here, it has been stopped.
            out[node.name] = f"{node.name}: restart, it is up and does not answer"
    return out
