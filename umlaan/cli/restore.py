"""``umlaan restore``: a snapshot becomes the node's root again; the current root is kept aside."""

from __future__ import annotations

import typer

from umlaan.cli.options import DataOption, InventoryOption, NodeArgument, chosen
from umlaan.cli.session import open_session
from umlaan.cli.snapshot import run


def command(
    ctx: typer.Context,
    node: NodeArgument,
    name: str = typer.Argument(metavar="NAME"),
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Make a snapshot the root of a stopped node; its root until now stays as a snapshot.

    Example: [bold]umlaan restore node1 before-upgrade[/]
    """
    session = open_session(chosen(ctx, inventory, data))
    run(session, session.node(node), "restore", name)
    return 1
