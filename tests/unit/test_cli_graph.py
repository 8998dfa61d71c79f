"""umlaan graph: pairs from both sides, a picture at two and at sixteen nodes, Mermaid text."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from umlaan.cli.chosen import Chosen
from umlaan.cli.fault import Fault
from umlaan.cli.graph import drawn, read
from umlaan.model.outputs import (
    HostOutput,
    KernelOutput,
    LinkOutput,
    NodeOutput,
    ProxyOutput,
    StatusOutput,
)
from umlaan.plan import graph
from umlaan.plan.mermaid import mermaid


def proxy(remote: int, joined: bool = True) -> ProxyOutput:
    return ProxyOutput(
        remote=remote, name=f"node{remote}", node_flags="E", proxy_flags=7, joined=joined
    )


def node_of(number: int, peers: range, state: str = "up", apart: int = -1) -> NodeOutput:
    return NodeOutput.model_validate(
        {
            "name": f"node{number}",
            "number": number,
            "lab_host": "@local",
            "state": state,
            "address": f"192.168.1.{100 + number}",
            "mac": "fe:fd:00:00:00:01",
            "tap": f"HTAP{number}",
            "kernel": KernelOutput(path="/k", release="6.1 <x&y>"),
            "root": "/r",
            "root_kind": "made",
            "root_exists": True,
            "proxies": tuple(proxy(p, p != apart) for p in peers if p != number),
        }
    )


def lab_of(count: int, states: dict[int, str] | None = None, apart: int = -1) -> StatusOutput:
    states = states or {}
    taps = [
        LinkOutput(
            name=f"HTAP{n}", kind="tap", up=True, carrier=True, master="br0", node=f"node{n}"
        )
        for n in range(1, count + 1)
    ]
    bridge = LinkOutput(
        name="br0", kind="bridge", up=True, carrier=True, addresses=("192.168.1.10/24",)
    )
    peers = range(count + 1)
    nodes = [
        node_of(n, peers, states.get(n, "up"), apart if n == 1 else -1) for n in range(1, count + 1)
    ]
    host = HostOutput(
        name="@local",
        label="node0",
        namespace='a"b',
        links=(bridge, *taps),
        proxies=tuple(proxy(p) for p in peers if p),
    )
    return StatusOutput(
        lab="x", verdict="converged", compared="live", at="now", hosts=(host,), nodes=tuple(nodes)
    )


def test_a_pair_is_joined_only_if_both_sides_say_so() -> None:
    found = {(p.one, p.other): p.joined for p in graph.pairs(lab_of(2, apart=2))}
    assert found == {(0, 1): True, (0, 2): True, (1, 2): False}


def test_of_a_large_lab_only_broken_pairs_are_drawn() -> None:
    assert len(graph.drawn(lab_of(3))) == 6
    assert graph.drawn(lab_of(16)) == []
    assert [(p.one, p.other) for p in graph.drawn(lab_of(16, apart=5))] == [(1, 5)]
    assert graph.drawn(lab_of(16, {5: "down"}, apart=5)) == []


def test_drift_has_a_colour_of_its_own() -> None:
    node = lab_of(1).nodes[0]
    assert graph.shade(node) == "up"
    assert graph.shade(node.model_copy(update={"drift": ("x",)})) == "drifted"
    assert set(graph.COLOURS) >= {"up", "down", "booting", "failed", "absent", "unreachable"}


def boxes(svg: bytes) -> dict[str, str]:
    """{title: all text} of what an SVG shows."""
    space = {"s": "http://www.w3.org/2000/svg"}
    out = {}
    for group in ElementTree.fromstring(svg).iterfind(".//s:g", space):
        title = group.find("s:title", space)
        if title is not None and title.text:
            out[title.text] = " ".join(
                "".join(t.itertext()) for t in group.iterfind("s:text", space)
            )
    return out


@pytest.mark.parametrize("count", [1, 2, 16])
def test_the_picture_shows_every_node_within_its_frame(count: int) -> None:
    svg = drawn(lab_of(count, {1: "failed"}), ".svg")
    found = boxes(svg)
    for number in range(1, count + 1):
        said = found[f"n{number}"]
        assert f"node{number}" in said and f"192.168.1.{100 + number}" in said
    assert "failed" in found["n1"] and "6.1 <x&y>" in found["n1"]
    assert "br0 192.168.1.10/24" in found["name @local"]
    # Wide enough to read, narrow enough for a page; taller with more nodes, never wider.
    width = float(ElementTree.fromstring(svg).attrib["width"].removesuffix("pt"))
    assert 700 < width < 820


def test_no_box_covers_another() -> None:
    """Places are fixed by us, so Graphviz does not keep them apart."""
    done = subprocess.run(
        ["neato", "-n2", "-Tplain"],
        input=graph.dot(lab_of(16)),
        capture_output=True,
        text=True,
        check=True,
    )
    places = []
    for line in done.stdout.splitlines():
        words = line.split()
        if words[0] == "node" and words[1].startswith("n") and words[1][1:].isdigit():
            x, y, w, h = (float(word) for word in words[2:6])
            places.append((x - w / 2, x + w / 2, y - h / 2, y + h / 2))
    assert len(places) == 17
    for index, (left, right, low, high) in enumerate(places):
        for other in places[index + 1 :]:
            apart = right <= other[0] or other[1] <= left or high <= other[2] or other[3] <= low
            assert apart


def test_a_png_is_one() -> None:
    data = drawn(lab_of(2), ".png")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 900 and height > 300


def test_mermaid_text() -> None:
    text = mermaid(lab_of(2, {2: "down"}, apart=2))
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "flowchart LR"
    assert 'subgraph host0 ["lab host @local, namespace a#quot;b"]' in lines
    assert "br0 ---|HTAP1| n1" in lines
    assert "n1 <-.->|not joined| n2" in lines
    assert any(line.startswith("classDef down ") for line in lines)
    edges = [line for line in lines if "---" in line or "-.-" in line]
    styled = [int(line.split()[1]) for line in lines if line.startswith("linkStyle")]
    assert max(styled) < len(edges)


def test_a_saved_report_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(lab_of(2).model_dump_json())
    assert read(Chosen(), path) == lab_of(2)
    path.write_text("{}")
    with pytest.raises(Fault, match="no report of umlaan status --json"):
        read(Chosen(), path)


def test_without_graphviz_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Fault, match="apt-get install --no-install-recommends graphviz"):
        drawn(lab_of(1), ".svg")
    assert drawn(lab_of(1), ".mmd").startswith(b"flowchart")
