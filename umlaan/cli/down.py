"""``umlaan down``: end the UML of nodes cleanly; roots, network and builds stay."""

from __future__ import annotations

import typer

from umlaan.cli.options import DataOption, InventoryOption, NodesArgument, chosen
from umlaan.cli.runs import limits, stream


def command(
    ctx: typer.Context,
    nodes: NodesArgument = None,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Stop all nodes, or those named, cleanly: Ctrl-Alt-Del first, force only where it is needed.

    Their roots, the network and all builds stay: umlaan up starts them again in seconds.

    Example: [bold]umlaan down node2[/]
    """
    choice = chosen(ctx, inventory, data)
    return stream(choice, "tasks/down.py", limits(choice, nodes))
