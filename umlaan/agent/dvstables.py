"""The tables of /proc/dvs, parsed: info, nodes, proxies/info, DCn/info and DCn/procs.

Procedure, "COMPROBAR EL ESTADO DE PROXIES Y NODOS". Lines that are no row are passed over: the DVK
prints some of them with a width of its own.
"""

from __future__ import annotations

import re
from typing import Any

Row = dict[str, Any]
CONNECTED = 7
# Proxy flags of the DVK: 1 it is bound, 2 its sender is connected, 4 its receiver is.
_WORDS = {
    0: "is not bound",
    1: "is bound, neither sender nor receiver is connected",
    3: "has its sender connected, its receiver is not",
    5: "has its receiver connected, its sender is not",
    7: "is connected",
}
# A guest may print anything as its tables: numbers have an end, and so have names and lines.
_N = r"(-?[0-9]{1,18})"
_NODE = re.compile(
    rf"^\s*([0-9]{{1,4}})\s+([0-9A-Fa-f]{{1,16}})\s+{_N}\s+{_N}\s+{_N}\s+([X-]+)\s+(\S{{1,64}})"
)
_PROXY = re.compile(
    rf"^\s*([0-9]{{1,4}})\s+([0-9A-Fa-f]{{1,16}})\s+{_N}\s+{_N}\s+(\S{{1,64}})\s+([X-]+)\s*$"
)
_PROC = re.compile(rf"^\s*{_N}\s+{_N}\s+{_N}\s+{_N}/{_N}\s+{_N}\s+(\S+)\s+(\S+).*?(\S{{1,64}})\s*$")
_LONGEST, _MOST = 1000, 4096


def bits(text: str) -> list[int]:
    """The numbers whose places are marked; the last character is bit 0."""
    return [index for index, mark in enumerate(reversed(text)) if mark == "X"]


def _lines(text: str) -> list[str]:
    """The lines that can be a row."""
    return [line for line in text.splitlines()[:_MOST] if len(line) <= _LONGEST]


def info(text: str) -> dict[str, str]:
    """``key=value`` lines."""
    rows = (line.strip().partition("=") for line in _lines(text) if "=" in line)
    return {key.strip(): value.strip() for key, _, value in rows}


def nodes(text: str) -> dict[int, Row]:
    """{number: {flags, proxy, sent, received, dcs, name, text}} of the nodes table."""
    out: dict[int, Row] = {}
    for line in _lines(text):
        found = _NODE.match(line)
        if found:
            number, flags, proxy, sent, received, marks, name = found.groups()
            out[int(number)] = {
                "flags": flags.upper(),
                "proxy": int(proxy),
                "sent": int(sent),
                "received": int(received),
                "dcs": bits(marks),
                "name": name,
                "text": line.rstrip(),
            }
    return out


def proxies(text: str) -> dict[int, Row]:
    """{number: {flags, sender, receiver, name, nodes, text}} of the proxies table."""
    out: dict[int, Row] = {}
    for line in _lines(text):
        found = _PROXY.match(line)
        if found:
            number, flags, sender, receiver, name, marks = found.groups()
            out[int(number)] = {
                "flags": int(flags, 16),
                "sender": int(sender),
                "receiver": int(receiver),
                "name": name,
                "nodes": bits(marks),
                "text": line.rstrip(),
            }
    return out


def procs(text: str) -> list[Row]:
    """[{endpoint, pid, node, name}] of a DC's processes; a remote endpoint has pid -1."""
    out = []
    for line in _lines(text):
        found = _PROC.match(line)
        if found:
            _, _, endpoint, pid, _, node, _, _, name = found.groups()
            out.append(
                {"endpoint": int(endpoint), "pid": int(pid), "node": int(node), "name": name}
            )
    return out


def flags_in_words(flags: int | None) -> str:
    """What a proxy's flags say of it."""
    return "is not there" if flags is None else _WORDS.get(flags & CONNECTED, f"has flags {flags}")


def proxy_flags(files: dict[str, str], peer: int) -> int | None:
    """The flags of a side's proxy to a peer; None where its table has no such row."""
    row = proxies(files.get("proxies/info", "")).get(peer)
    return None if row is None else int(row["flags"])


def connected(files: dict[str, str], peer: int) -> bool:
    """Whether a side's proxy to a peer says that both its halves are connected."""
    return (proxy_flags(files, peer) or 0) & CONNECTED == CONNECTED


def unjoined(files: dict[str, str], peer: int, dcids: list[int]) -> list[str]:
    """Why a side does not count a peer as joined; empty where it does.

    Joined: the proxy's flags are 7, the node's E, and each DC that both are in has its mark.
    """
    node = nodes(files.get("nodes", "")).get(peer)
    if not connected(files, peer):
        return [f"its proxy {flags_in_words(proxy_flags(files, peer))}"]
    if node is None:
        return ["it has no row for it"]
    out = []
    if node["flags"] != "E":
        out.append(f"its flags are {node['flags']}, not E")
    out += [f"it is not in DC{d}" for d in dcids if d not in node["dcs"]]
    return out
