"""``umlaan console``: attach this terminal to a guest's console."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from umlaan.cli.options import DataOption, InventoryOption, NodeArgument, chosen
from umlaan.cli.reach import must_run
from umlaan.cli.session import open_session


def command(
    ctx: typer.Context,
    node: NodeArgument,
    tail: Annotated[int, typer.Option("--tail", "-n", help="Lines of its log first.")] = 20,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Attach to a node's console, its log's last lines first; Ctrl-] detaches, the node goes on.

    Several people may be attached at once. Piped input is typed there.

    Example: [bold]umlaan console node1[/]
    """
    session = open_session(chosen(ctx, inventory, data))
    one = session.node(node)
    must_run(session, one)
    words = ["console", one.dir, "--tail", str(tail)]
    shell = f"exec env {session.agent(one.host)} {shlex.join(words)}"
    session.become(one.host, shell, terminal=sys.stdin.isatty() and sys.stdout.isatty())
    return 1
