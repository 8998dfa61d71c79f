"""The DVS brought up on each side, its proxies kept running, its nodes joined.

Procedure, "ARRANCAR DVS EN HOST Y UML": tests.sh on the host, test_uml.sh in each UML.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import QuoteString
from pyinfra.context import host as context_host
from pyinfra.context import state as context_state

from umlaan.agent.dvslook import silent
from umlaan.agent.patience import Wait, summary
from umlaan.facts.base import NoAnswer, agent, ask_agent
from umlaan.facts.dvsup import DvsSides
from umlaan.facts.node import node_rows
from umlaan.model.node import Node
from umlaan.operations import pending, reboot
from umlaan.operations.common import LabCommand, carrier, chosen, executing, fail, kept, lab, why
from umlaan.operations.node import start_commands, stop_commands
from umlaan.operations.operation import operation
from umlaan.plan import dvssides, dvsup
from umlaan.plan import node as node_plan

if TYPE_CHECKING:
    from pyinfra.api.command import StringCommand

    Commands = Generator[StringCommand, None, None]
    Side = dict[str, Any]
    View = dict[str, Any]

REBOOT = (
    "reboot it, then run again; a run over ssh with reboot: when_needed and without --limit does "
    "so itself"
)
SETTLE = 3.0  # s in which a pair that lost its link a moment ago connects again by itself


def views_of(sides: list[Side], light: bool = False) -> dict[str, View]:
    """How these sides are now, by name; each lab host is asked once for those it carries.

    light: tables and DCs only.
    """
    describe = dvssides.light if light else dvssides.asked
    out: dict[str, View] = {}
    for name in sorted({side["carrier"] for side in sides}):
        on = context_state.inventory.get_host(name)
        mine = [describe(side) for side in sides if side["carrier"] == name]
        try:
            out.update(ask_agent(on, DvsSides, json.dumps({"sides": mine})) or {})
        except NoAnswer as error:
            # A side that cannot be asked: its peers on other machines go on without it.
            out.update({side["name"]: silent(str(error)) for side in mine})
    return out


class Seen(dict[str, Any]):
    """{name: view} of this run's looks, as long as nothing changed them; a name is spoilt once."""

    def __init__(self) -> None:
        super().__init__()
        self.spoilt: set[str] = set()

    def keep(self, views: dict[str, View]) -> None:
        """Remember what was looked at, unless the run has changed that side meanwhile."""
        good = {n: v for n, v in views.items() if v["answers"] and n not in self.spoilt}
        self.update(good)

    def spoil(self, names: list[str]) -> None:
        """Forget sides that are being changed; operations of other hosts run beside this one."""
        self.spoilt.update(names)
        for name in names:
            self.pop(name, None)


def seen() -> Seen:
    """What this run has looked at and nothing has changed since."""
    return kept(context_state, "dvs_views", Seen)


def begun() -> set[str]:
    """Machines whose DVS this run has brought up or mended: their proxies are young."""
    return kept(context_state, "dvs_begun", set)


def agent_order(verb: str, order: dict[str, Any]) -> LabCommand:
    """A verb of the agent's ``dvsup`` on the lab host that carries the current host."""
    words = QuoteString(json.dumps(order, sort_keys=True))
    return LabCommand(agent(carrier()), "dvsup", verb, words, live=True)


@operation()
def up(number: int) -> Commands:
    """
    Have one side's own part up: DVS initialised, DC made, proxies running.

    + number: the side's node number; 0 is the lab host, or a UML node where it runs no DVS

    Stale endpoints of an aborted test are unbound. What is up as declared is left alone.
    """
    side = dvssides.sides(lab()).get(number)
    if side is None or pending.node_waits(side["carrier"], _dvs_of(side)):
        return
    view = views_of([side]).get(side["name"])
    if view is None or not view["answers"]:
        if executing():
            said = view["error"] if view else "its lab host does not answer"
            yield from fail(f"{side['name']}: its DVS cannot be read: {said}")
        else:
            why(f"{side['name']}: bring its DVS up")
            yield agent_order("look", {"sides": [dvssides.asked(side)]})
        return
    change = dvsup.change(lab(), side, view)
    if not change.reasons:
        seen().keep({side["name"]: view})
        return
    host = side["place"] == "host"
    if host and "info" not in view["files"]:
        reboot.look()
        if pending.host_waits(side["carrier"], _dvs_of(side)):
            return
    waits = side["carrier"] in pending.kernels(context_state) or reboot.failed()
    may = host and change.kind == "systemd" and not waits and reboot.allowed()
    if may and whole_anew(side, change):
        # together.rebooted does it, once for all that this run has changed until then.
        return
    for reason in change.reasons:
        why(reason)
    if whole_anew(side, change):
        yield from _with_its_node(side, change)
        return
    if host:
        begun().add(side["name"])
    yield agent_order("up", change.order(side))
    if "info" not in view["files"] and change.files:
        yield from _as_written(side)


def whole_anew(side: Side, change: dvsup.Change) -> bool:
    """Whether it takes a new start of all that the side is: its proxies cannot be ended alone."""
    return side["proxy_restart"] != "proxy" and bool(change.stuck() or change.reinit)


def _dvs_of(side: Side) -> str:
    return f"{side['name']}: its DVS"


def _as_written(side: Side) -> Commands:
    """A node that had just booted may have begun with the scripts that stood in it before."""
    view = views_of([side]).get(side["name"])
    if not executing() or view is None or not view["answers"]:
        return
    change = dvsup.change(lab(), side, view)
    if not change.reinit:
        return
    for reason in change.reasons:
        why(reason)
    if side["proxy_restart"] != "proxy":
        yield from _with_its_node(side, change)
    else:
        yield agent_order("up", change.order(side))


def _with_its_node(side: Side, change: dvsup.Change) -> Commands:
    """Proxies that cannot be ended: the whole node is started anew."""
    what = ", ".join(change.stuck()) or "the DVS"
    # First, so that what starts next is what is wanted.
    yield agent_order("write", change.order(side))
    if side["place"] == "host":
        yield from fail(
            f"{side['name']}: {what} can only be ended with the machine "
            f"(dvs.programs.proxy_restart is {side['proxy_restart']}): {REBOOT}"
        )
        return
    why(f"{side['name']}: restart the node, {what} cannot be ended by itself")
    node = lab().node(side["name"])
    yield from _restart(node)
    change.files, change.restart, change.gone, change.reinit = {}, [], [], False
    yield agent_order("up", change.order(side))


def _restart(node: Node) -> Commands:
    row = node_rows(carrier(), lab(), (node,)).get(node.name)
    yield from stop_commands(node)
    yield from start_commands(node_plan.wanted_launch(lab(), node, row))


@operation()
def joined(number: int) -> Commands:
    """
    Wait until a side and each of its peers count each other as joined, in the tables of both.

    + number: the side's node number

    Peers that are down or failed in this run are left out; verification tells of them.
    """
    everyone = dvssides.sides(lab())
    side = everyone.get(number)
    if side is None or not side["peers"] or pending.node_waits(side["carrier"], _dvs_of(side)):
        return
    others = {
        s["name"]: s for n, s in everyone.items() if n != number and not _else_where(number, s)
    }
    known = seen()
    missing = [s for s in (side, *others.values()) if s["name"] not in known]
    views = {**known, **views_of(missing, light=True)}
    answering = {n: s for n, s in others.items() if views.get(n, {}).get("answers")}
    if not views.get(side["name"], {}).get("answers"):
        if executing():
            yield from fail(f"{side['name']}: its DVS cannot be read")
        return
    wanted = dvsup.joining(side, answering, views)
    settling = Wait(SETTLE, looks=1)
    while wanted.reasons and executing() and settling.goes_on(frozenset(wanted.reasons)):
        # Proxies connect again by themselves; what heals within moments is no change of this run.
        settling.pause(least=0.25)
        views = {**views, **views_of([side, *answering.values()], light=True)}
        wanted = dvsup.joining(side, answering, views)
    if not wanted.reasons:
        known.keep(views)
        return
    for reason in summary(wanted.reasons):
        why(reason)
    known.spoil([each["name"] for each in wanted.sides])
    order = {
        "sides": wanted.sides,
        "pairs": wanted.pairs,
        "deadline": side["connect_timeout"],
        "again": side["proxy_restart"] == "proxy",
        "remedy": _remedy(side, everyone.values()),
        "what": f"{side['name']} and its peers",
    }
    yield agent_order("join", order)


def _remedy(side: Side, everyone: Iterable[Side]) -> str:
    """A proxy of the real DVS that hung at its start, or outlived its peer, connects no more."""
    kind = side["proxy_restart"]
    machines = [each["name"] for each in everyone if each["place"] == "host"]
    what = f"these proxies cannot be ended by themselves (dvs.programs.proxy_restart is {kind}): "
    if kind == "proxy":
        return ""
    if machines:
        # No run reboots a machine for a pair alone whose other side can be started anew.
        then = REBOOT if kind == "lab" else REBOOT.partition(";")[0]
        return f"{what}those of {', '.join(machines)} end with the machine; {then}"
    if kind == "lab":
        return f"{what}a run without --limit starts all nodes anew together"
    return f"{what}start all nodes anew together, umlaan down and then umlaan up"


def _else_where(number: int, side: Side) -> bool:
    """True for a peer that failed in this run, or whose own operation waits for the pair."""
    name = side["carrier"] if side["place"] == "host" else f"@uml/{side['name']}"
    if any(host.name == name for host in context_state.failed_hosts):
        return True
    return bool(side["number"] > number and chosen(name))


@operation()
def down() -> Commands:
    """The DVS of this lab host ended: proxies, DCs, its state, and what was written for them."""
    side = next(
        (
            s
            for s in dvssides.sides(lab()).values()
            if s["place"] == "host" and s["carrier"] == context_host.name
        ),
        None,
    )
    if side is None:
        yield from _left(stop=False)
        return
    view = views_of([side]).get(side["name"])
    if view is None or not view["answers"]:
        yield from fail(f"{side['name']}: its DVS cannot be read")
        return
    reasons = dvsup.standing(side, view)
    if not reasons:
        return
    for reason in reasons:
        why(reason)
    yield agent_order("down", {"side": dvssides.asked(side), "kind": view["kind"]})


@operation()
def left() -> Commands:
    """
    What a lab host's DVS left behind where the lab has none on it any more (host_dvk was True).

    The nodes that run inside its DC are stopped before; their own stages start them again.
    """
    yield from _left(stop=True)


def _left(stop: bool) -> Commands:
    side = dvssides.former(lab(), carrier().name)
    view = None if side is None else views_of([side]).get(side["name"])
    # Only what has this lab's scripts beside it: DVS and DC may be another one's.
    if side is None or view is None or not view["hashes"]:
        return
    for reason in dvsup.standing(side, view):
        why(reason)
    rows = node_rows(carrier(), lab(), lab().nodes_on(carrier().name), reach=False) if stop else {}
    for name, row in rows.items():
        if row["running"] and row["record"].get("dc"):
            why(f"{name}: stop, the DC that it runs in ends")
            yield from stop_commands(lab().node(name))
    yield agent_order("down", {"side": dvssides.asked(side), "kind": view["kind"]})
