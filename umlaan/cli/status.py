"""``umlaan status``: a row a node, and each lab host's links, read from the machines."""

from __future__ import annotations

import os
import time
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer

from umlaan.agent import proc
from umlaan.cli.options import DataOption, InventoryOption, JsonOption, chosen
from umlaan.cli.runs import DryRun
from umlaan.cli.session import Session, open_session
from umlaan.cli.show import as_json, coloured, errors, hint, output, plain, size, span, table
from umlaan.facts.network import found_network
from umlaan.facts.status import Live
from umlaan.model.outputs import NodeOutput, ProxyOutput, StatusOutput
from umlaan.plan import status as plan
from umlaan.plan.network_state import wanted_of

DRIFTED = 2
# What the command as a whole may take; guests get what is left of it, but never less than that.
WHOLE_S = 1.9
GUESTS_S = 0.5
PATIENT_S = 5.0
EVERY_S = 2.0
# The agent's own start, and the table.
MARGIN_S = 0.2
# Of one line of drift: a guest may have had its part in its words.
LONGEST = 2000


def read(session: Session, patience: float, planning: DryRun | None = None) -> StatusOutput:
    """One look at all lab hosts; guests get patience seconds. A planning run is waited for."""
    lab = session.lab
    hosts, nodes = [], []
    tables: dict[int, dict[str, str]] = {}
    for host in lab.hosts:
        live = session.ask_agent(host.name, Live, plan.question(lab, host, patience))
        mine = lab.nodes_on(host.name)
        wanted = wanted_of(host, mine, lab.peers())
        found = session.reading(host.name, partial(found_network, wanted=wanted))
        hosts.append(plan.host_output(lab, host, found, live))
        tables |= plan.heard(lab, host, live)
        nodes += [plan.node_output(lab, node, found, live) for node in mine]
    nodes.sort(key=lambda node: node.number)
    at = datetime.now().astimezone().isoformat("T", "seconds")
    changes = planning.result().changes if planning else None
    return plan.status(lab, hosts, nodes, tables, at, changes)


def command(
    ctx: typer.Context,
    inventory: InventoryOption = None,
    data: DataOption = None,
    json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every 2 s.")] = False,
    drift: Annotated[
        bool, typer.Option("--drift", help="Compare everything that umlaan up would look at.")
    ] = False,
) -> int:
    """Show each node and link as it is now, and what differs from the declared lab.

    Exit code 0 converged, 2 drifted, 1 error.

    Example: [bold]umlaan status --drift[/]
    """
    choice = chosen(ctx, inventory, data)
    if watch:
        return _watch(open_session(choice), json)
    if drift:
        planning = DryRun(choice)
        found = read(open_session(choice), PATIENT_S, planning)
    else:
        session = open_session(choice)
        spent = proc.age(proc.process(os.getpid()).start)  # type: ignore[union-attr]
        found = read(session, max(GUESTS_S, WHOLE_S - MARGIN_S - spent))
        if any(node.guest == "late" for node in found.nodes):
            # A busy machine: a true answer is worth more than a fast one.
            found = read(session, PATIENT_S)
    if json:
        print(as_json(found))
    else:
        for part in rendered(found):
            output().print(part)
        _next(found)
    return 0 if found.verdict == "converged" else DRIFTED


def _watch(session: Session, json: bool) -> int:
    from rich.console import Group
    from rich.live import Live as Screen

    if json:
        # One line a look, for a program that reads along.
        while True:
            print(as_json(read(session, WHOLE_S), indent=None), flush=True)
            time.sleep(EVERY_S)
    with Screen(console=output(), screen=False, auto_refresh=False) as screen:
        while True:
            screen.update(Group(*rendered(read(session, WHOLE_S))), refresh=True)
            time.sleep(EVERY_S)


def rendered(found: StatusOutput) -> list[Any]:
    """The report for a person."""
    from rich.text import Text

    parts: list[Any] = [Text.from_markup(f"lab [bold]{found.lab}[/]: {coloured(found.verdict)}")]
    if found.nodes:
        parts.append(_nodes(found))
    parts += [Text.from_markup(line) for line in _hosts(found)]
    lines = found.drift()
    if lines:
        parts.append(Text(""))
        parts += [Text(f"  {line[:LONGEST]}", style="yellow") for line in lines]
    return parts


def _nodes(found: StatusOutput) -> Any:
    rows = table("node", "state", "kernel", "root", "DVS", "address", "up", "memory", "proxies")
    for node in found.nodes:
        rows.add_row(
            f"[bold]{node.name}[/]",
            coloured("drifted" if node.state == "up" and node.drift else node.state),
            f"{plain(node.kernel.release or '-')}\n[dim]{plain(node.kernel.sha256 or '')[:12]}[/]",
            f"{_root(node)}\n[dim]{node.transport or ''}[/]",
            _dvs(node),
            f"{node.address}\n[dim]{node.tap}[/]",
            span(node.uptime_s),
            size(node.memory_bytes),
            _proxies(node, found),
        )
    return rows


def _root(node: NodeOutput) -> str:
    if not node.root_exists:
        return "[dim]none[/]"
    return plain(node.root.rpartition("/")[2] if node.root_kind == "made" else node.root)


def _dvs(node: NodeOutput) -> str:
    if node.dvs is None:
        return "-"
    colour = {"as built": "green", "differs": "red", "missing": "red"}.get(node.dvs.state, "dim")
    said = f"{len(node.dvs.differing)} differ" if node.dvs.differing else node.dvs.state
    return f"[{colour}]{said}[/]\n[dim]{(node.dvs.sha256 or '')[:12]}[/]"


def _proxies(node: NodeOutput, found: StatusOutput) -> str:
    """Each pair once a side: how this node sees the other, how the other sees it."""
    sides: dict[int, tuple[ProxyOutput, ...]] = {n.number: n.proxies for n in found.nodes}
    for host in found.hosts:
        if host.label.removeprefix("node").isdigit():
            sides[int(host.label.removeprefix("node"))] = host.proxies
    lines = []
    for mine in node.proxies:
        theirs = next((p for p in sides.get(mine.remote, ()) if p.remote == node.number), None)
        both = f"{_side(mine)}/{_side(theirs)}"
        joined = mine.joined and (theirs is None or theirs.joined)
        lines.append(f"[{'green' if joined else 'red'}]{plain(mine.name)} {both}[/]")
    return "\n".join(lines) or "-"


def _side(proxy: ProxyOutput | None) -> str:
    if proxy is None:
        return "?"
    return (
        f"{plain(proxy.node_flags or '-')}{'' if proxy.proxy_flags is None else proxy.proxy_flags}"
    )


def _hosts(found: StatusOutput) -> list[str]:
    lines = []
    for host in found.hosts:
        where = f"in namespace {host.namespace}" if host.namespace else "on the host itself"
        words = []
        for link in host.links:
            colour = "green" if link.up else "red"
            about = ", ".join(link.addresses) or link.node or ""
            if link.kind == "tap" and not link.master:
                colour = "red"
            words.append(f"[{colour}]{plain(link.name)}[/]" + (f" {plain(about)}" if about else ""))
        lines.append(
            f"[bold]{plain(host.label)}[/] ({plain(host.name)}) {plain(where)}: "
            f"{', '.join(words) or 'no links'}"
        )
    return lines


def _next(found: StatusOutput) -> None:
    late = [node.name for node in found.nodes if node.guest == "late"]
    if late:
        hint(f"{', '.join(late)} did not answer in {PATIENT_S:.0f} s, so its guest is not in here")
    if found.verdict == "drifted":
        silent = [node.name for node in found.nodes if node.state == "unreachable"]
        if silent:
            errors().print(f"look: umlaan console {silent[0]}", style="dim")
        hint("next: umlaan plan shows each change, umlaan up makes it")
