"""Verification: what the agent is asked for one node, and the table that a person reads."""

from __future__ import annotations

from typing import Any

from umlaan.model.dvs import Dvs
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.plan.access import ssh_words


def spec(lab: Lab, node: Node, dvs: Dvs | None, transport: str) -> dict[str, Any]:
    """The agent's questions about one node."""
    peers = dict(lab.peers())
    other = peers.get("node0") if node.number else None
    network = node.network
    return {
        "name": node.name,
        "address": str(node.address),
        "cidr": f"{node.address}/{network.address.network.prefixlen}",
        "interface": "vec0" if transport == "vector" else "eth0",
        "namespace": network.namespace,
        "node0": {"address": other or str(network.address.ip)},
        "kernel_stamp": f"{node.kernel_dir}/stamp.json",
        "ssh": ssh_words(node),
        "dvs": dvs and {"dest": dvs.dest, "stamp": f"{node.state_dir}/dvs/ipc.stamp.json"},
        "tests": [],
    }


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Host's view and guest's view of one node, side by side, as text."""
    head = {"what": name, "host": "host's view", "guest": "guest's view", "ok": None}
    cells = [
        [str(row["what"]), str(row["host"]), str(row["guest"]), _mark(row["ok"])]
        for row in [head, *rows]
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    lines = []
    for line, row in zip(cells, [head, *rows], strict=True):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        lines.append("  " + text.rstrip())
        if row.get("detail"):
            lines.append(f"      {row['detail']}")
    return "\n".join(lines)


def _mark(ok: bool | None) -> str:
    return "" if ok is None else ("ok" if ok else "WRONG")


def failures(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """One line for each check that failed."""
    return [
        f"{name}: {row['what']}: host {row['host'] or '-'}, guest {row['guest'] or '-'}"
        + (f" ({row['detail']})" if row["detail"] else "")
        for row in rows
        if not row["ok"]
    ]
