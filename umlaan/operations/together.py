"""Nodes whose proxies connect only if all of them start anew, stopped before their launch.

Procedure, "ARRANCAR DVS EN HOST Y UML": both sides are started by hand there, one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyinfra.api.operation import operation
from pyinfra.context import state as context_state

from umlaan.facts.node import node_rows
from umlaan.model.node import Node
from umlaan.operations import dvsup
from umlaan.operations.common import chosen, executing, kept, lab, why
from umlaan.operations.node import stop_commands
from umlaan.plan import dvssides, together
from umlaan.plan import dvsup as dvsup_plan
from umlaan.plan import node as node_plan

if TYPE_CHECKING:
    from pyinfra.api.command import StringCommand

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
    more = f" (and {len(found.reasons) - 1} more)" if len(found.reasons) > 1 else ""
    why(f"{node.name}: restart it with the others, {found.reasons[0]}{more}")
    if node.name in found.orders:
        yield dvsup.agent_order("write", found.orders[node.name])
    yield from stop_commands(node)


def _found() -> Anew:
    """The look of this run; the first node that asks makes it, the others wait for it."""
    known: dict[bool, Anew] = kept(context_state, "anew", dict)
    with kept(context_state, "anew_lock", threading.Lock):
        if executing() not in known:
            known[executing()] = _look()
    return known[executing()]


def _look() -> Anew:
    sides = dvssides.sides(lab())
    if not together.applies(sides):
        return Anew()
    rows: dict[str, Any] = {}
    for host in lab().hosts:
        on = context_state.inventory.get_host(host.name)
        rows.update(node_rows(on, lab(), lab().nodes_on(host.name)))
    up = [n for n, row in rows.items() if row["running"] and row.get("answers") is not False]
    views = dvsup.views_of([side for side in sides.values() if side["name"] in up])
    views = {name: view for name, view in views.items() if view["answers"]}
    uptimes = {name: rows[name]["uptime"] for name in views}
    out = Anew(together.lost(sides, views, _starting(rows), uptimes), up)
    for side in sides.values():
        if side["name"] not in views:
            continue
        change = dvsup_plan.change(lab(), side, views[side["name"]])
        if change.stuck() or change.reinit:
            out.reasons.append(change.reasons[0])
        if change.files or change.gone:
            out.orders[side["name"]] = change.order(side)
    return out if all(_acts(name) for name in up) else Anew()


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
    return out
