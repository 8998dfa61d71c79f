"""The options that all verbs share: -i and --data, before the verb or after it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from umlaan.cli.chosen import Chosen

InventoryOption = Annotated[
    str | None,
    typer.Option(
        "--inventory",
        "-i",
        envvar="UMLAAN_INVENTORY",
        help="The inventory, as pyinfra takes it. Default: ./inventory.py",
        show_default=False,
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data", metavar="KEY=VALUE", help="Override data, as pyinfra's --data; repeatable."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="For scripts: JSON as docs/schemas has it.")
]


def node_names(incomplete: str) -> list[str]:
    """The inventory's nodes for the shell's completion; none where it cannot be read."""
    from umlaan.cli.fault import Fault
    from umlaan.cli.session import open_session

    try:
        lab = open_session(Chosen(os.environ.get("UMLAAN_INVENTORY"))).lab
    except Fault:
        return []
    return [node.name for node in lab.nodes if node.name.startswith(incomplete)]


NodeArgument = Annotated[str, typer.Argument(metavar="NODE", autocompletion=node_names)]
NodesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NODE]...", autocompletion=node_names)
]


def chosen(ctx: typer.Context, inventory: str | None, data: list[str] | None) -> Chosen:
    """A verb's own options, laid over those that stood before it."""
    before = ctx.obj if isinstance(ctx.obj, Chosen) else Chosen()
    return Chosen(inventory or before.inventory, (*before.data, *(data or ())))
