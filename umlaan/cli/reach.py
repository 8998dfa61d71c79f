"""How a node is entered, up or down: the shell's line on its lab host."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from umlaan.cli.fault import Fault
from umlaan.cli.session import Session
from umlaan.cli.show import span
from umlaan.facts.node import node_rows
from umlaan.model.node import Node
from umlaan.plan import node as plan
from umlaan.plan.access import root_run_words, ssh_words

Row = dict[str, Any]


def row_of(session: Session, node: Node, *, reach: bool = True) -> Row:
    """What a node is doing now. Fault if its lab host does not say."""
    nodes = (node,)
    rows = session.reading(node.host, lambda on: node_rows(on, session.lab, nodes, reach=reach))
    found = rows.get(node.name)
    if found is None:
        raise Fault(f"lab host {node.host} does not say what {node.name} is doing")
    return found


def one_line(words: Sequence[str]) -> str:
    """A command as the shell's line: one word alone is a line already, several are exact words."""
    if words[:1] == ["--"]:
        words = words[1:]
    return words[0] if len(words) == 1 else shlex.join(words)


def guest_line(node: Node, command: str | None, *, terminal: bool = False) -> str:
    """The line on the lab host that enters a running guest by ssh."""
    words = ssh_words(node)
    if terminal:
        words.insert(words.index("ssh") + 1, "-t")
    return shlex.join(words if command is None else [*words, command])


def root_line(session: Session, node: Node, command: str) -> str:
    """The line on the lab host that runs a command in a stopped node's root."""
    return f"env {session.agent(node.host)} {shlex.join(root_run_words(node, command))}"


def line(session: Session, node: Node, command: str, *, terminal: bool = False) -> str:
    """The line that runs a command in a node: through the guest, or through a stopped root.

    A node that boots is waited for. Fault where nothing can be run in it.
    """
    row = row_of(session, node)
    if row["running"]:
        entered = f"exec {guest_line(node, command, terminal=terminal)}"
        if row["answers"]:
            return entered
        return f"{_waiting(session, node, row)} && {entered}"
    if not row["root_exists"]:
        raise Fault(f"{node.name} does not exist yet", f"umlaan up {node.name} makes it")
    return f"exec {root_line(session, node, command)}"


def _waiting(session: Session, node: Node, row: Row) -> str:
    left = node.settings.boot_timeout - row["uptime"]
    order = {**plan.address_of(node), "deadline": max(left, 2.0)}
    return f"env {session.agent(node.host)} node-wait {shlex.quote(json.dumps(order))} >&2"


def must_run(session: Session, node: Node) -> Row:
    """The row of a node that is up. Fault, saying how it ended, where it is not."""
    row = row_of(session, node)
    if not row["running"]:
        raise Fault(
            f"{node.name} is not up: {plan.how_it_ended(row['record'])}",
            f"umlaan up {node.name} starts it; umlaan logs {node.name} shows its console's end",
        )
    return row


def must_answer(session: Session, node: Node) -> Row:
    """The row of a node whose sshd answers. Fault, saying since when it is up, where not."""
    row = must_run(session, node)
    if not row["answers"]:
        since = span(row["uptime"])
        raise Fault(
            f"{node.name} is up for {since}, but ssh on {node.address} does not answer",
            f"umlaan console {node.name} enters it without ssh; umlaan up repairs what it can",
        )
    return row
