"""Two sides' tables next to each other, the cells on which they do not agree marked."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from umlaan.agent import dvstables

NODES = ("ID", "Flags", "Proxies", "pxsent", "pxrcvd", "DCs", "Name")
PROXIES = ("Proxies", "Flags", "Sender", "Receiver", "Name")


# A table of more rows is shown by those of the pair in question.
ROWS = 4


def side_by_side(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Lines; a cell on which the sides do not agree stands in > <.

    Each side is {name, peer (the other's number), files, dcids that both are in, still: the
    counters that did not move}.
    """
    columns = [_tables(left), _tables(right)]
    width = max(len(line) for line in columns[0])
    rows = zip_longest(*columns, fillvalue="")
    return [f"{one.ljust(width)}  |  {other}".rstrip() for one, other in rows]


def _tables(side: dict[str, Any]) -> list[str]:
    files, peer = side["files"], side["peer"]
    nodes = dvstables.nodes(files.get("nodes", ""))
    proxies = dvstables.proxies(files.get("proxies/info", ""))
    nodes, proxies = _those_of(nodes, peer), _those_of(proxies, peer)
    rows = [
        [n, r["flags"], r["proxy"], r["sent"], r["received"], _dcs(r["dcs"]), r["name"]]
        for n, r in sorted(nodes.items())
    ]
    bad_node = set()
    if peer in nodes:
        row, at = nodes[peer], sorted(nodes).index(peer)
        missing = set(side.get("dcids", ())) - set(row["dcs"])
        wrong = [row["flags"] != "E", bool(missing)]
        bad_node = {(at, column) for column, bad in zip((1, 5), wrong, strict=True) if bad}
        bad_node |= {(at, {"sent": 3, "received": 4}[key]) for key in side.get("still", ())}
    else:
        rows.append([peer, "none", "", "", "", "", f"node{peer}"])
        bad_node.add((len(rows) - 1, 1))
    lines = [f"{side['name']}: nodes", *_aligned(NODES, rows, bad_node)]
    rows = [
        [n, r["flags"], r["sender"], r["receiver"], r["name"]] for n, r in sorted(proxies.items())
    ]
    bad_proxy = {
        (i, 1)
        for i, n in enumerate(sorted(proxies))
        if n == peer and proxies[n]["flags"] & dvstables.CONNECTED != dvstables.CONNECTED
    }
    if peer not in proxies:
        rows.append([peer, "none", "", "", f"node{peer}"])
        bad_proxy.add((len(rows) - 1, 1))
    return [*lines, f"{side['name']}: proxies", *_aligned(PROXIES, rows, bad_proxy)]


def _those_of(rows: dict[int, dict[str, Any]], peer: int) -> dict[int, dict[str, Any]]:
    """A table's rows; of a long one that of the peer and the side's own, which has no proxy."""
    if len(rows) <= ROWS:
        return rows
    return {n: row for n, row in rows.items() if n == peer or row.get("proxy") == -1}


def _dcs(numbers: list[int]) -> str:
    return ",".join(map(str, numbers)) or "-"


def _aligned(head: tuple[str, ...], rows: list[list[Any]], bad: set[tuple[int, int]]) -> list[str]:
    cells = [list(head)]
    for i, row in enumerate(rows):
        cells.append([f">{c}<" if (i, j) in bad else str(c) for j, c in enumerate(row)])
    widths = [max(len(line[j]) for line in cells) for j in range(len(head))]
    return [
        "  ".join(
            c.rjust(w) if j < len(head) - 1 else c
            for j, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
