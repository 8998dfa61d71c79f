"""``umlaan up``: pyinfra's own run of deploy.py, with the same inventory and data."""

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
    """Bring the lab up as it is declared, changing only what differs. NODE limits it to some.

    The last line is for scripts; the exit code is 0 only where all is up.

    Example: [bold]umlaan up node1[/]
    """
    choice = chosen(ctx, inventory, data)
    return stream(choice, "deploy.py", limits(choice, nodes))
