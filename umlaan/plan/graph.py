"""The lab drawn: from a status report to a Graphviz source, or to Mermaid text. Pure.

Each lab host is a frame with its bridge as an upright bar; the nodes stand left and right of it,
so that sixteen of them are as easy to read as two. The places are fixed here and Graphviz draws
(neato -n2): a lab looks the same today and tomorrow.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field

from umlaan.agent.visible import visible, word
from umlaan.model.outputs import HostOutput, LinkOutput, NodeOutput, ProxyOutput, StatusOutput

# Points, Graphviz's unit: 72 to the inch.
BOX_W, BOX_H = 236.0, 80.0
ROW, HEAD_H, HEAD_W = 100.0, 74.0, 330.0
BAR_W, TAP_W, TAP_H, GAP = 16.0, 58.0, 20.0, 54.0
SIDE = BAR_W / 2 + TAP_W + GAP + BOX_W / 2
FRAME_W, FRAME_GAP, PAD = 2 * SIDE + BOX_W + 44, 40.0, 26.0
# Every pair is drawn up to here; beyond it only those that are not joined.
FEW = 4

# state: (line, fill, text). Told apart by their words too, for those who see no colours.
COLOURS = {
    "up": ("#2e7d32", "#e9f6ea", "#1b5e20"),
    "drifted": ("#e08600", "#fff4e0", "#8a5200"),
    "booting": ("#1976d2", "#e6f1fc", "#0d47a1"),
    "down": ("#8a8a8a", "#f2f2f2", "#555555"),
    "absent": ("#b5b5b5", "#fafafa", "#777777"),
    "unreachable": ("#c62828", "#fdebea", "#8e1b1b"),
    "failed": ("#c62828", "#fdebea", "#8e1b1b"),
}
JOINED, PARTED = "#3f6fb5", "#c62828"
_FONT = "DejaVu Sans,Helvetica,Arial,sans-serif"


def shade(node: NodeOutput) -> str:
    """The state that gives a node its colour: one that is up, but not as declared, is drifted."""
    return "drifted" if node.state == "up" and node.drift else node.state


@dataclass(frozen=True)
class Pair:
    """Two DVS nodes that a proxy joins, or should."""

    one: int
    other: int
    joined: bool
    counts: str


def pairs(found: StatusOutput) -> list[Pair]:
    """Each pair once, from both sides' tables; joined only where all sides that speak say so."""
    sides: dict[int, tuple[ProxyOutput, ...]] = {n.number: n.proxies for n in found.nodes}
    for host in found.hosts:
        if (number := host_number(host)) is not None:
            sides[number] = host.proxies
    seen: dict[tuple[int, int], list[ProxyOutput]] = {}
    for number, rows in sides.items():
        for row in rows:
            if row.remote in sides:
                key = (min(number, row.remote), max(number, row.remote))
                seen.setdefault(key, []).append(row)
    return [
        Pair(*key, joined=all(row.joined for row in rows), counts=_counts(rows))
        for key, rows in sorted(seen.items())
    ]


def _counts(rows: list[ProxyOutput]) -> str:
    return f"{rows[0].sent or 0}/{rows[0].received or 0}"


def host_number(host: HostOutput) -> int | None:
    """A lab host's own DVS number; None where it runs none."""
    digits = host.label.removeprefix("node")
    return int(digits) if digits.isdigit() else None


def drawn(found: StatusOutput) -> list[Pair]:
    """The pairs to draw: all of a small lab; of a larger one those that should be joined."""
    all_pairs = pairs(found)
    if len({end for pair in all_pairs for end in (pair.one, pair.other)}) <= FEW:
        return all_pairs
    # One that is not up is told by its box; its fifteen missing pairs would hide the rest.
    gone = {node.number for node in found.nodes if node.state != "up"}
    return [pair for pair in all_pairs if not pair.joined and not {pair.one, pair.other} & gone]


@dataclass
class _Dot:
    """Graphviz source being written."""

    lines: list[str] = field(default_factory=list)
    places: dict[str, tuple[float, float]] = field(default_factory=dict)

    def node(self, name: str, x: float, y: float, label: str, **attributes: str | float) -> None:
        """A node at a place; label is HTML-like where it begins with <."""
        text = f"<{label}>" if label.startswith("<") else _quoted(label)
        more = "".join(f", {key}={_quoted(str(value))}" for key, value in attributes.items())
        self.places[name] = (x, y)
        self.lines.append(f'  {_quoted(name)} [pos="{x:.1f},{y:.1f}!", label={text}{more}];')

    def edge(self, one: str, other: str, **attributes: str | float) -> None:
        """An undirected edge."""
        more = ", ".join(f"{key}={_quoted(str(value))}" for key, value in attributes.items())
        self.lines.append(f"  {_quoted(one)} -- {_quoted(other)} [{more}];")

    def box(
        self, name: str, x: float, y: float, w: float, h: float, label: str, **more: str
    ) -> None:
        """A box of a fixed size, in points."""
        size: dict[str, str | float] = {"width": w / 72, "height": h / 72, "fixedsize": "true"}
        self.node(name, x, y, label, shape="box", **size, **more)


def escape(text: str) -> str:
    """A word for Graphviz's HTML-like labels, which are XML: no control character may be in it."""
    return html.escape(word(text))


def _quoted(text: str) -> str:
    return '"' + visible(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def dot(found: StatusOutput) -> str:
    """The Graphviz source; places are fixed, so it wants ``neato -n2``."""
    out = _Dot()
    all_pairs = pairs(found)
    top = 0.0
    for host in found.hosts:
        top = _host(out, host, [n for n in found.nodes if n.lab_host == host.name], all_pairs, top)
    shown = drawn(found)
    _legend(out, found, shown, top)
    for pair in shown:
        _join(out, pair)
    body = "\n".join(out.lines)
    return (
        f"graph {_quoted(found.lab)} {{\n"
        '  graph [outputorder=nodesfirst, splines=line, bgcolor="white", pad=0.15, '
        f'fontname="{_FONT}"];\n'
        f'  node [fontname="{_FONT}", fontsize=10, style="filled,rounded"];\n'
        f'  edge [fontname="{_FONT}", fontsize=9];\n{body}\n}}\n'
    )


def _join(out: _Dot, pair: Pair) -> None:
    """A proxy pair as a dashed line that keeps clear of the taps."""
    one, other = f"n{pair.one}", f"n{pair.other}"
    (x1, y1), (x2, y2) = out.places[one], out.places[other]
    ports = {}
    if y1 == y2:
        # Side by side: below the taps, from corner to corner.
        left = ("se", "sw") if x1 < x2 else ("sw", "se")
        ports = {"tailport": left[0], "headport": left[1]}
    elif x1 == 0 and y1 - y2 > ROW * 1.5:
        # From the lab host past a node in between: down the aisle.
        ports = {"tailport": "s", "headport": "ne" if x2 < 0 else "nw"}
    colour = JOINED if pair.joined else PARTED
    width = 1.4 if pair.joined else 2.4
    out.edge(one, other, penwidth=width, style="dashed", color=colour, **ports)


def _host(
    out: _Dot, host: HostOutput, nodes: list[NodeOutput], all_pairs: list[Pair], top: float
) -> float:
    """One lab host's frame; the height at which the next one begins."""
    rows = max(1, (len(nodes) + 1) // 2)
    height = PAD + 18 + HEAD_H + 34 + rows * ROW + PAD - (ROW - BOX_H)
    _frame(out, host, top, height)
    head_y = top - PAD - 18 - HEAD_H / 2
    number = host_number(host)
    out.box(
        f"n{number}" if number is not None else f"host {host.name}",
        *(0, head_y, HEAD_W, HEAD_H, _head(host, all_pairs)),
        color=COLOURS["drifted" if host.drift else "up"][0],
        fillcolor=COLOURS["drifted" if host.drift else "up"][1],
    )
    first = head_y - HEAD_H / 2 - 34 - BOX_H / 2
    last = first - (rows - 1) * ROW
    bridge = next((link for link in host.links if link.kind == "bridge"), None)
    _bar(out, host, bridge, head_y - HEAD_H / 2, last - BOX_H / 2)
    taps = {link.node: link for link in host.links if link.kind == "tap"}
    for index, node in enumerate(nodes):
        y = first - (index // 2) * ROW
        _node(out, node, taps.get(node.name), all_pairs, -1 if index % 2 == 0 else 1, y)
    return top - height - FRAME_GAP


def _frame(out: _Dot, host: HostOutput, top: float, height: float) -> None:
    where = (
        f"network namespace {host.namespace}" if host.namespace else "network of the host itself"
    )
    title = f"lab host {host.name}, {where}"
    place = (0, top - height / 2, FRAME_W, height)
    out.box(f"frame {host.name}", *place, "", color="#c9ced6", fillcolor="#f7f8fa")
    plain: dict[str, str | float] = {"shape": "plaintext", "style": "", "fontcolor": "#555b66"}
    out.node(f"title {host.name}", 0, top - 16, title, **plain)


def _head(host: HostOutput, all_pairs: list[Pair]) -> str:
    node0 = next((link for link in host.links if link.kind == "node0"), None)
    address = ", ".join(node0.addresses).replace("/32", "") if node0 else ""
    mine = [p for p in all_pairs if host_number(host) in (p.one, p.other)]
    state = "drifted" if host.drift else "as declared"
    colour = COLOURS["drifted" if host.drift else "up"][2]
    rows = [
        (f"<B>{escape(host.label)}</B>", f'<FONT COLOR="{colour}"><B>{state}</B></FONT>'),
        (escape(address) or "-", f"{escape(node0.name)}" if node0 else ""),
        (_tree(host.dvs.state, host.dvs.sha256) if host.dvs else "", _joined(mine)),
    ]
    return _cells(rows, HEAD_W - 24)


def _bar(out: _Dot, host: HostOutput, bridge: LinkOutput | None, top: float, bottom: float) -> None:
    """The bridge, from under the lab host's box down past the last row."""
    there = bridge is not None and bridge.up
    colour = "#5b6b82" if there else PARTED
    name = bridge.name if bridge else "no bridge"
    about = f"{name} {', '.join(bridge.addresses)}" if bridge else "no bridge"
    out.box(
        f"bar {host.name}",
        *(0, (top + bottom) / 2, BAR_W, top - bottom, ""),
        color=colour,
        fillcolor=colour,
        style="filled",
    )
    label = f'<<FONT POINT-SIZE="10"><B>{escape(about)}</B></FONT>>'[1:-1]
    out.node(
        *(f"name {host.name}", 0, top - 17, f"<{label}>"[1:-1]),
        shape="box",
        color=colour,
        fillcolor="#ffffff",
        height=0.28,
        margin="0.08,0.02",
    )


def _node(
    out: _Dot,
    node: NodeOutput,
    tap: LinkOutput | None,
    all_pairs: list[Pair],
    side: int,
    y: float,
) -> None:
    line, fill, _ = COLOURS[shade(node)]
    good = tap is not None and tap.up and tap.master is not None
    colour = "#5b6b82" if good else PARTED
    out.box(
        f"tap {node.name}",
        *(side * (BAR_W / 2 + TAP_W / 2), y, TAP_W, TAP_H, node.tap if tap else "no tap"),
        color=colour,
        fillcolor="#ffffff",
        fontsize="9",
        fontcolor=colour,
        style="filled" if good else "filled,dashed",
    )
    out.box(
        f"n{node.number}",
        *(side * SIDE, y, BOX_W, BOX_H, _box(node, all_pairs)),
        color=line,
        fillcolor=fill,
        penwidth="1.6",
    )
    live = good and node.state in ("up", "booting", "unreachable")
    style = "solid" if live else "dotted"
    out.edge(f"n{node.number}", f"tap {node.name}", color=colour, style=style, penwidth=1.6)


def _box(node: NodeOutput, all_pairs: list[Pair]) -> str:
    state = shade(node)
    said = state if node.uptime_s is None else f"{state} {_span(node.uptime_s)}"
    kernel = f"{node.kernel.release or 'no kernel'} {(node.kernel.sha256 or '')[:8]}".strip()
    mine = [pair for pair in all_pairs if node.number in (pair.one, pair.other)]
    memory = f"{node.memory_bytes / 1e6:.0f} MB" if node.memory_bytes is not None else ""
    rows = [
        (
            f'<FONT POINT-SIZE="13"><B>{escape(node.name)}</B></FONT>',
            f'<FONT COLOR="{COLOURS[state][2]}"><B>{escape(said)}</B></FONT>',
        ),
        (escape(node.address), escape(node.transport or "")),
        (escape(kernel), memory),
        (_tree(node.dvs.state, node.dvs.sha256) if node.dvs else "no DVS", _joined(mine)),
    ]
    return _cells(rows, BOX_W - 18)


def _tree(state: str, digest: str | None) -> str:
    colour = PARTED if state in ("differs", "missing") else "#333333"
    short = f" {escape(digest[:8])}" if digest and state == "as built" else ""
    return f'<FONT COLOR="{colour}">DVS {escape(state)}{short}</FONT>'


def _joined(mine: list[Pair]) -> str:
    if not mine:
        return ""
    good = sum(pair.joined for pair in mine)
    colour = JOINED if good == len(mine) else PARTED
    return f'<FONT COLOR="{colour}">proxies {good}/{len(mine)}</FONT>'


def _cells(rows: list[tuple[str, str]], width: float) -> str:
    # It is the cells that must have a width: a table's own does not move its right column.
    half = f"{width / 2:.0f}"
    out = ['<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="1" CELLPADDING="0">']
    for left, right in rows:
        out.append(
            f'<TR><TD ALIGN="LEFT" WIDTH="{half}">{left or " "}</TD>'
            f'<TD ALIGN="RIGHT" WIDTH="{half}">{right or " "}</TD></TR>'
        )
    return "".join([*out, "</TABLE>>"])[1:-1]


def _legend(out: _Dot, found: StatusOutput, shown: list[Pair], top: float) -> None:
    """What the colours mean, those that are in the picture; which lab this is, and when."""
    states = {shade(node) for node in found.nodes}
    y = top + FRAME_GAP - 24
    left = -FRAME_W / 2 + 48
    for index, state in enumerate(state for state in COLOURS if state in states):
        line, fill, _ = COLOURS[state]
        place = (left + index * 92, y, 84, 20)
        out.box(f"legend {state}", *place, state, color=line, fillcolor=fill, fontsize="9")
    plain: dict[str, str | float] = {"shape": "plaintext", "style": "", "fontsize": 9}
    words = [(True, JOINED, "- - proxies joined"), (False, PARTED, "- - proxies not joined")]
    used = [
        (colour, text) for joined, colour, text in words if any(p.joined is joined for p in shown)
    ]
    for index, (colour, text) in enumerate(used):
        x = FRAME_W / 2 - 70 - 130 * (len(used) - 1 - index)
        out.node(f"legend {text}", x, y, text, fontcolor=colour, **plain)
    note = f"lab {found.lab}, {found.verdict}, {found.at}"
    out.node("note", 0, y - 26, note, fontcolor="#777777", **plain)


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60:02d}"
