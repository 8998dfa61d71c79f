"""Verification: what the agent is asked for one node, and the table that a person reads."""

from __future__ import annotations

from typing import Any

from umlaan.agent import dvstables
from umlaan.agent.patience import FEW
from umlaan.agent.visible import word
from umlaan.model.dvs import Dvs
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.plan import dvssides, exchanges
from umlaan.plan.access import ssh_words
from umlaan.plan.dvstables import side_by_side
from umlaan.plan.node import interface_of

# Faults of a whole pair stand in one detail.
LONG = 2000


def spec(lab: Lab, node: Node, dvs: Dvs | None, transport: str) -> dict[str, Any]:
    """The agent's questions about one node."""
    peers = dict(lab.peers())
    other = peers.get("node0") if node.number else None
    network = node.network
    return {
        "name": node.name,
        "address": str(node.address),
        "cidr": f"{node.address}/{network.address.network.prefixlen}",
        "interface": interface_of(transport),
        "namespace": network.namespace,
        "node0": {"address": other or str(network.address.ip)},
        "kernel_stamp": f"{node.kernel_dir}/stamp.json",
        "ssh": ssh_words(node),
        "patience": max(60, node.settings.boot_timeout // 3),
        "dvs": dvs and {"dest": dvs.dest, "stamp": f"{node.state_dir}/dvs/ipc.stamp.json"},
        "pairs": None,
    }


def pairs(lab: Lab, number: int, seen: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The agent's questions about one node's DVS; None where it has none.

    A pair is verified with the higher number of its two nodes. seen are this run's views.
    """
    everyone = dvssides.sides(lab)
    own = everyone.get(number)
    if own is None:
        return None
    lower = [
        peer for peer in own["peers"] if peer["number"] < number and peer["number"] in everyone
    ]
    hub = everyone.get(dvssides.hub(lab)) if dvssides.hub(lab) != number else None
    tests, none = exchanges.tests(lab, hub, own) if hub else ([], None)
    asked = {own["name"]: own, **({hub["name"]: hub} if hub else {})}
    asked.update({p["name"]: everyone[p["number"]] for p in lower})
    whole = {own["name"], hub["name"] if hub else ""}
    before = {
        name: seen[name] if name in whole else _rows(seen[name], number)
        for name in asked
        if name in seen
    }
    dvs = lab.settings(f"@uml/node{number}").dvs
    return {
        "own": own["name"],
        "hub": hub["name"] if hub else None,
        "sides": {name: dvssides.light(side) for name, side in asked.items()},
        "pairs": [{"other": p["name"], "number": p["number"], "dcids": p["dcids"]} for p in lower],
        "tests": tests,
        "no_tests": none,
        "beats": bool(dvs and dvs.programs.beats),
        "before": before,
        "lock": f"/run/umlaan/{lab.name}.exchange.lock",
    }


def _rows(view: dict[str, Any], number: int) -> dict[str, Any]:
    """Of a view only what it says of one node: the question to the agent stays small."""
    wanted = {}
    for name, parse in (("nodes", dvstables.nodes), ("proxies/info", dvstables.proxies)):
        row = parse(view["files"].get(name, "")).get(number)
        wanted[name] = f"{row['text']}\n" if row else ""
    return {
        "answers": view["answers"],
        "error": view["error"],
        "files": wanted,
        "dcs": {},
        "pids": [],
    }


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Host's view and guest's view of one node, side by side, as text.

    Of pairs that are not joined the first few, the tables of both sides with the first of them.
    """
    rows, more = _fewer(rows)
    head = {"what": name, "host": "host's view", "guest": "guest's view", "ok": None}
    cells = [
        [word(row["what"]), word(row["host"]), word(row["guest"]), _mark(row["ok"])]
        for row in [head, *rows]
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    lines = []
    for line, row in zip(cells, [head, *rows], strict=True):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        lines.append("  " + text.rstrip())
        if row.get("detail"):
            lines.append(f"      {word(row['detail'], LONG)}")
        if row.get("tables"):
            lines += [f"      {word(text, LONG)}" for text in side_by_side(*row["tables"])]
    return "\n".join(lines + ([f"  and {more} more pairs that are WRONG"] if more else []))


def _fewer(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The rows without most of the wrong pairs, and how many are left out."""
    wrong = [row for row in rows if row.get("tables")]
    left_out = wrong[FEW:] if len(wrong) > FEW + 1 else []
    kept = [{**row, "tables": None} if row in wrong[1:] else row for row in rows]
    return [row for row, old in zip(kept, rows, strict=True) if old not in left_out], len(left_out)


def _mark(ok: bool | None) -> str:
    return "" if ok is None else ("ok" if ok else "WRONG")


def failures(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """One line for each check that failed."""
    return [
        f"{name}: {word(row['what'])}: host {word(row['host'] or '-')}, "
        f"guest {word(row['guest'] or '-')}"
        + (f" ({word(row['detail'], LONG)})" if row["detail"] else "")
        for row in rows
        if not row["ok"]
    ]
