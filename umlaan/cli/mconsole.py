"""``umlaan mconsole``: a command for UML's own management console."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from umlaan.cli.options import DataOption, InventoryOption, NodeArgument, chosen
from umlaan.cli.reach import must_run
from umlaan.cli.session import open_session

SETTINGS = {"context_settings": {"allow_interspersed_args": False}}


def command(
    ctx: typer.Context,
    node: NodeArgument,
    words: Annotated[list[str] | None, typer.Argument(metavar="[CMD]...")] = None,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Ask a node's management console: version, proc FILE, sysrq KEY, stop, go, config DEV, help.

    It answers even where the guest's network or user space does not. Exit code 1 if it refuses,
    69 if it is silent. cad and halt end the node: umlaan down does that in the right order.

    Example: [bold]umlaan mconsole node1 proc meminfo[/]
    """
    session = open_session(chosen(ctx, inventory, data))
    one = session.node(node)
    must_run(session, one)
    path = f"{one.uml_dir}/{one.umid}/mconsole"
    asked = ["mconsole", path, *(words or ["help"])]
    session.become(one.host, f"exec env {session.agent(one.host)} {shlex.join(asked)}")
    return 1
