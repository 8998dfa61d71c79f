"""``umlaan snapshot``: a node's root kept under a name."""

from __future__ import annotations

import json as json_module
import shlex
from typing import Annotated

import typer

from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, JsonOption, chosen, node_names
from umlaan.cli.session import Session, open_session
from umlaan.cli.show import as_json, hint, output, plain, size, table
from umlaan.facts.snapshot import Snapshots
from umlaan.model.node import Node
from umlaan.model.outputs import SnapshotOutput, SnapshotsOutput
from umlaan.plan import snapshot as plan


def command(
    ctx: typer.Context,
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", autocompletion=node_names)] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the snapshot NAME.")] = False,
    inventory: InventoryOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Keep a node's root under a name; without a name, list what there is.

    A running guest freezes its file system for the moment of the copy (one that cannot is paused);
    where the file system has reflinks, the copy costs nothing. Snapshots survive umlaan destroy.

    Example: [bold]umlaan snapshot node1 before-upgrade[/]
    """
    session = open_session(chosen(ctx, inventory, data))
    if node is None or name is None:
        if delete:
            raise Fault("--delete needs NODE and NAME", "umlaan snapshot lists them", code=64)
        return _list(session, session.nodes(node or "all"), json)
    one = session.node(node)
    run(session, one, "remove" if delete else "take", name)
    return 1


def run(session: Session, node: Node, verb: str, name: str) -> None:
    """Have the agent do it on the lab host; its words and exit code are ours."""
    refused = plan.refusal(node) or plan.bad_name(name)
    if refused:
        raise Fault(refused)
    told = shlex.quote(json_module.dumps(plan.order(node, name)))
    session.become(node.host, f"exec env {session.agent(node.host)} snapshot {verb} {told}")


def listed(session: Session, nodes: tuple[Node, ...]) -> list[SnapshotOutput]:
    """The snapshots of these nodes."""
    rows: list[SnapshotOutput] = []
    for host in session.lab.hosts:
        mine = tuple(node for node in nodes if node.host == host.name)
        if mine:
            found = session.ask_agent(host.name, Snapshots, plan.question(mine))
            for node in mine:
                rows += plan.outputs(node.name, found[node.name])
    return rows


def _list(session: Session, nodes: tuple[Node, ...], json: bool) -> int:
    found = listed(session, nodes)
    if json:
        print(as_json(SnapshotsOutput(lab=session.lab.name, snapshots=tuple(found))))
        return 0
    if not found:
        output().print("no snapshots")
        hint("make one: umlaan snapshot NODE NAME")
        return 0
    rows = table("node", "snapshot", "taken", "while", "on disk")
    for row in found:
        rows.add_row(row.node, plain(row.name), row.at, row.state, size(row.disk_bytes))
    output().print(rows)
    hint("bring one back: umlaan restore NODE NAME; remove one: umlaan snapshot NODE NAME --delete")
    return 0
