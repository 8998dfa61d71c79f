"""``umlaan ssh``: a login in a guest, or one command, by the lab's own key."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from umlaan.cli.options import DataOption, InventoryOption, NodeArgument, chosen
from umlaan.cli.reach import guest_line, must_answer, one_line
from umlaan.cli.session import open_session

SETTINGS = {"context_settings": {"allow_interspersed_args": False}}


def command(
    ctx: typer.Context,
    node: NodeArgument,
    words: Annotated[list[str] | None, typer.Argument(metavar="[[--] CMD...]")] = None,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Log in to a running node as root, by the lab's key, through its lab host.

    For a node that is down, and for scripts, umlaan exec is the verb.

    Example: [bold]umlaan ssh node1[/]
    """
    session = open_session(chosen(ctx, inventory, data))
    one = session.node(node)
    must_answer(session, one)
    shell = one_line(words) if words else None
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    session.become(one.host, f"exec {guest_line(one, shell, terminal=terminal)}", terminal=terminal)
    return 1
