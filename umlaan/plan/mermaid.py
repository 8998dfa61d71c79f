"""The lab as Mermaid text, which many wikis and forges draw by themselves. Pure."""

from __future__ import annotations

from umlaan.agent.visible import word
from umlaan.model.outputs import HostOutput, NodeOutput, StatusOutput
from umlaan.plan.graph import COLOURS, JOINED, PARTED, Pair, drawn, host_number, shade


def mermaid(found: StatusOutput) -> str:
    """A flowchart: lab host, bridge, taps as edges, nodes coloured by state, proxies dashed."""
    lines = ["flowchart LR"]
    edges: list[str] = []
    colours: list[str] = []
    for index, host in enumerate(found.hosts):
        mine = [node for node in found.nodes if node.lab_host == host.name]
        lines += _host(index, host, mine, edges, colours)
    for pair in drawn(found):
        _pair(pair, edges, colours)
    lines += edges
    for state in dict.fromkeys(shade(node) for node in found.nodes):
        line, fill, text = COLOURS[state]
        lines.append(f"  classDef {state} fill:{fill},stroke:{line},color:{text}")
    return "\n".join([*lines, *colours]) + "\n"


def _host(
    index: int, host: HostOutput, nodes: list[NodeOutput], edges: list[str], colours: list[str]
) -> list[str]:
    where = f"namespace {host.namespace}" if host.namespace else "the host itself"
    bridge = next((link for link in host.links if link.kind == "bridge"), None)
    taps = {link.node: link for link in host.links if link.kind == "tap"}
    name = f"{bridge.name} {', '.join(bridge.addresses)}" if bridge else "no bridge"
    number = host_number(host)
    own = f"n{number}" if number is not None else f"h{index}"
    node0 = next((link for link in host.links if link.kind == "node0"), None)
    address = ", ".join(node0.addresses).replace("/32", "") if node0 else host.name
    lines = [
        f'  subgraph host{index} ["{_text(f"lab host {host.name}, {where}")}"]',
        f'    {own}["{_text(host.label)}<br/>{_text(address)}"]',
        f'    br{index}[["{_text(name)}"]]',
    ]
    edges.append(f"  {own} --- br{index}")
    for node in nodes:
        kernel = node.kernel.release or "no kernel"
        head = _text(f"{node.name}: {shade(node)}")
        text = f"{head}<br/>{_text(node.address)}<br/>{_text(kernel)}"
        lines.append(f'    n{node.number}["{text}"]:::{shade(node)}')
        tap = taps.get(node.name)
        good = tap is not None and tap.up and tap.master is not None
        label = node.tap if tap else "no tap"
        edges.append(f"  br{index} {'---' if good else '-.-'}|{_text(label)}| n{node.number}")
        if not good:
            colours.append(f"  linkStyle {len(edges) - 1} stroke:{PARTED}")
    return [*lines, "  end"]


def _pair(pair: Pair, edges: list[str], colours: list[str]) -> None:
    said = "proxy" if pair.joined else "not joined"
    edges.append(f"  n{pair.one} <-.->|{said}| n{pair.other}")
    colours.append(f"  linkStyle {len(edges) - 1} stroke:{JOINED if pair.joined else PARTED}")


# Mermaid's own marks, HTML's, and Markdown's that it knows in a text.
_MARKS = {'"': "#quot;", **{mark: f"#{ord(mark)};" for mark in "#&<>`|"}}


def _text(text: str) -> str:
    return "".join(_MARKS.get(sign, sign) for sign in word(text))
