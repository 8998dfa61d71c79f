"""``umlaan destroy``: remove what umlaan made, and only that."""

from __future__ import annotations

from typing import Annotated

import typer

from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, chosen
from umlaan.cli.runs import stream
from umlaan.cli.show import errors


def command(
    ctx: typer.Context,
    inventory: InventoryOption = None,
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Stop all nodes and remove images, network, kernels and keys of this lab.

    Partitions of your own, sources, built caches and snapshots stay.

    Example: [bold]umlaan destroy --yes[/]
    """
    choice = chosen(ctx, inventory, data)
    if not yes:
        _ask()
    return stream(choice, "tasks/destroy.py")


def _ask() -> None:
    import sys

    if not sys.stdin.isatty():
        raise Fault("destroy asks before it removes the nodes' images", "in a script: --yes")
    errors().print("The nodes' images that umlaan made, and all in them, will be gone.")
    if not typer.confirm("Destroy the lab?", err=True):
        raise Fault("nothing was changed")
