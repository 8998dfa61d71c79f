"""``umlaan exec``: a command in one node or in all, up or down, with its real exit code."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import IO, Annotated

import typer

from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, chosen, node_names
from umlaan.cli.reach import line, one_line
from umlaan.cli.session import Session, open_session
from umlaan.cli.show import hint
from umlaan.model.node import Node

# After the node's name every word is the command's, options too.
SETTINGS = {"context_settings": {"allow_interspersed_args": False}}


def command(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE|all", autocompletion=node_names)],
    words: Annotated[list[str], typer.Argument(metavar="[--] CMD...")],
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Run a command in a node: in its guest, or in the root of one that is down.

    The exit code is the command's. Several words are taken exactly as they are, one word alone is
    a line for the shell. With all, each line of output has its node's name before it, and the
    exit code is the first that is not 0.

    Example: [bold]umlaan exec all -- cat /proc/loadavg[/]
    """
    session = open_session(chosen(ctx, inventory, data))
    shell = one_line(words)
    if node == "all":
        return _all(session, shell)
    one = session.node(node)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    session.become(one.host, line(session, one, shell, terminal=terminal), terminal=terminal)
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
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        other = threading.Thread(target=_copy, args=(process.stderr, sys.stderr, prefix))
        other.start()
        _copy(process.stdout, sys.stdout, prefix)
        other.join()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _copy(source: IO[str], target: IO[str], prefix: str) -> None:
    for text in source:
        target.write(prefix + (text if text.endswith("\n") else f"{text}\n"))
        target.flush()
