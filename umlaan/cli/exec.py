"""``umlaan exec``: a command in one node or in all, up or down, with its real exit code."""

from __future__ import annotations

import sys
import threading
from typing import Annotated

import typer

from umlaan.cli import shown
from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, chosen, node_names
from umlaan.cli.reach import line, one_line
from umlaan.cli.session import Session, open_session
from umlaan.cli.show import hint
from umlaan.cli.shown import Prefixed
from umlaan.model.node import Node

# After the node's name every word is the command's, options too.
SETTINGS = {"context_settings": {"allow_interspersed_args": False}}


def command(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE|all", autocompletion=node_names)],
    words: Annotated[list[str], typer.Argument(metavar="[--] CMD...")],
    terminal: Annotated[
        bool,
        typer.Option("--terminal", "-t", help="Give it this terminal, raw: for top or an editor."),
    ] = False,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Run a command in a node: in its guest, or in the root of one that is down.

    The exit code is the command's. Several words are taken exactly as they are, one word alone is
    a line for the shell. With all, each line of output has its node's name before it, and the
    exit code is the first that is not 0.

    On a terminal control characters of its output are shown, not obeyed; into a file or a pipe
    every byte goes as it is. With -t, before the node's name, it has the terminal to itself.

    Example: [bold]umlaan exec all -- cat /proc/loadavg[/]
    """
    session = open_session(chosen(ctx, inventory, data))
    shell = one_line(words)
    if node == "all":
        return _all(session, shell)
    one = session.node(node)
    if not terminal:
        return session.show(one.host, line(session, one, shell))
    session.become(one.host, line(session, one, shell, terminal=True), terminal=True)
    return 1


def _all(session: Session, shell: str) -> int:
    nodes = session.lab.nodes
    width = max((len(node.name) for node in nodes), default=0)
    codes: dict[str, int] = {}

    def run(node: Node) -> None:
        codes[node.name] = _prefixed(session, node, shell, f"{node.name:<{width}} | ")

    threads = [threading.Thread(target=run, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bad = {name: codes[name] for name in sorted(codes) if codes[name]}
    for name, code in bad.items():
        hint(f"{name}: exit code {code}")
    return next((codes[node.name] for node in nodes if codes[node.name]), 0)


def _prefixed(session: Session, node: Node, shell: str, prefix: str) -> int:
    try:
        words = session.argv(node.host, line(session, node, shell))
    except Fault as fault:
        for text in str(fault).splitlines():
            print(f"{prefix}{text}", file=sys.stderr)
        return fault.code
    sinks = [Prefixed(stream, prefix) for stream in (sys.stdout, sys.stderr)]
    return shown.run(words, sinks)
