"""Snapshots of nodes' roots: which may be taken, under which names, and what the agent is told."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from umlaan.model.node import Node
from umlaan.model.outputs import SnapshotOutput
from umlaan.plan.access import ssh_words
from umlaan.plan.node import address_of

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


def bad_name(name: str) -> str | None:
    """Why this cannot be a snapshot's name; None if it can."""
    if _NAME.match(name):
        return None
    return (
        f"{name!r} cannot be a snapshot's name: letters, digits, dot, dash and underscore, at most "
        "64, a letter or digit first; for example before-upgrade"
    )


def refusal(node: Node) -> str | None:
    """Why umlaan makes no snapshots of this root; None if it does."""
    if node.root.made is not None:
        return None
    return (
        f"{node.name}'s root {node.root_path} is your own: umlaan neither copies nor replaces what "
        "it did not make; use your volume manager's snapshots, or dd while the node is down"
    )


def store(node: Node) -> str:
    """Where a node's snapshots stand; destroy leaves them."""
    return f"{node.state_dir}/snapshots/{node.name}"


def order(node: Node, name: str | None = None) -> dict[str, Any]:
    """What the agent is told."""
    told = {**address_of(node), "store": store(node), "ssh": ssh_words(node)}
    return {**told, "snapshot": name} if name is not None else told


def question(nodes: tuple[Node, ...]) -> str:
    """For the agent's listing."""
    return json.dumps(
        {"nodes": [{"name": n.name, "store": store(n), "root": n.root_path} for n in nodes]}
    )


def outputs(node: str, rows: list[dict[str, Any]]) -> list[SnapshotOutput]:
    """The agent's listing of one node for a person or a script."""
    return [
        SnapshotOutput(
            node=node,
            name=row["name"],
            at=datetime.fromtimestamp(row["at"]).astimezone().isoformat("T", "seconds"),
            state=row["state"],
            size_bytes=row["size"],
            disk_bytes=row["disk"],
            how=row["how"],
        )
        for row in rows
    ]
