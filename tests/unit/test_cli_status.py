"""umlaan status: from one look at the machines to a report; the agent's look itself."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from umlaan.agent import live
from umlaan.cli.schema import text_of
from umlaan.cli.status import rendered
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.model.outputs import OUTPUTS, ChangeOutput, StatusOutput
from umlaan.plan import node as node_plan
from umlaan.plan import status as plan
from umlaan.plan.network_state import Found, Link

REPO = Path(__file__).resolve().parents[2]
SHA = "a" * 64
NODES = """\
ID Flags Proxies -pxsent- -pxrcvd- 10987654321098765432109876543210 Name
 0     E       0     2767     1181 -------------------------------X node0
 1     6      -1        0        0 -------------------------------X node1
"""
PROXIES = """\
Proxies Flags Sender Receiver --Proxies_Name- 10987654321098765432109876543210
      0     7    742      743           node0 -------------------------------X
"""


def lab_of(count: int = 1, **data: Any) -> Lab:
    rows = [HostData("@local", False, data)]
    return build_lab([*rows, *(HostData(f"@uml/node{n}", True, data) for n in range(1, count + 1))])


def row_of(lab: Lab, name: str, **changed: Any) -> dict[str, Any]:
    node = lab.node(name)
    record = {
        "argv": node_plan.command_line(node, "tuntap"),
        "kernel_sha256": SHA,
        "root_id": [1, 2],
        "namespace": node.network.namespace,
        "dc": None,
        "pid": 4711,
        "started_at": 1.0,
        "exit": None,
    }
    row = {
        "record": record,
        "running": True,
        "pid": 4711,
        "uptime": 500.0,
        "answers": True,
        "root_exists": True,
        "root_id": [1, 2],
        "kernel": {"sha256": SHA, "release": "6.1.7", "transports": ["tuntap"]},
        "dc": {"pid": None, "start": None, "fault": "missing"},
        "memory": 45_000_000,
        "holder": True,
        "release": "6.1.7",
    }
    return {**row, **changed}


def live_of(lab: Lab, view: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    tree = {"compared": True, "missing": False, "bad": []}
    view = view or {"heard": "answered", "tables": {}, "tree": tree}
    return {
        "rows": {n.name: row_of(lab, n.name, **changed) for n in lab.nodes},
        "guests": {n.name: view for n in lab.nodes},
        "tables": {},
        "stamps": {v: {"hash": "b" * 64, "bytes": 10} for v in ("ioctl", "ipc")},
    }


def report(lab: Lab, look: dict[str, Any], found: Found | None = None) -> StatusOutput:
    found = found or Found("here")
    hosts = [plan.host_output(lab, lab.hosts[0], found, look)]
    nodes = [plan.node_output(lab, node, found, look) for node in lab.nodes]
    tables = plan.heard(lab, lab.hosts[0], look)
    return plan.status(lab, hosts, nodes, tables, "2026-01-01T00:00:00+00:00")


def test_a_node_as_declared() -> None:
    lab = lab_of()
    node = report(lab, live_of(lab)).nodes[0]
    assert (node.state, node.transport, node.pid, node.console) == ("up", "tuntap", 4711, True)
    assert (node.kernel.release, node.kernel.sha256) == ("6.1.7", SHA)
    assert node.dvs is not None
    assert (node.dvs.state, node.guest, node.memory_bytes) == ("as built", "answered", 45_000_000)
    # The tap is not in the empty network that was found, nor are tables in the guest.
    assert {line.split(":")[0] for line in node.drift} == {
        "tap HTAP",
        "route to node1 (192.168.1.101)",
        "node1",
    }


def test_a_node_that_was_killed_says_so() -> None:
    lab = lab_of()
    look = live_of(lab, running=False, pid=None, uptime=None)
    look["rows"]["node1"]["record"]["exit"] = {"code": -9}
    look["guests"] = {}
    found = report(lab, look)
    assert found.nodes[0].state == "failed"
    assert found.nodes[0].drift[0] == "node1: start, it is down (killed by signal 9)"
    assert found.nodes[0].dvs is not None and found.nodes[0].dvs.state == "not compared"
    assert (found.nodes[0].transport, found.nodes[0].guest) == (None, "not asked")
    assert found.verdict == "drifted"


def test_a_node_that_does_not_answer() -> None:
    lab = lab_of()
    node = report(lab, live_of(lab, answers=False)).nodes[0]
    assert node.state == "unreachable"
    assert "node1: is up for 500 s, ssh on 192.168.1.101 does not answer" in node.drift


@pytest.mark.parametrize(
    ("tree", "state", "said"),
    [
        ({"compared": True, "missing": True, "bad": ["x"]}, "missing", "the tree is missing"),
        (
            {"compared": True, "missing": False, "bad": ["a", "b", "c", "d"]},
            "differs",
            "a, b, c and 1 more differ from what was built",
        ),
        ({"compared": False, "missing": False, "bad": []}, "not compared", None),
    ],
)
def test_the_tree_inside_as_the_guest_says(
    tree: dict[str, Any], state: str, said: str | None
) -> None:
    lab = lab_of()
    node = report(lab, live_of(lab, {"heard": "answered", "tables": {}, "tree": tree})).nodes[0]
    assert node.dvs is not None and node.dvs.state == state
    lines = [line for line in node.drift if "/usr/src/dvs" in line]
    assert [line.partition(": ")[2] for line in lines] == ([said] if said else [])


def test_proxies_of_both_sides() -> None:
    lab = lab_of()
    view = {"heard": "answered", "tables": {"nodes": NODES, "proxies/info": PROXIES}, "tree": None}
    look = live_of(lab, view)
    look["tables"] = {"nodes": NODES.replace(" 1     6      -1", " 1     E       1")}
    found = report(lab, look)
    (mine,) = found.nodes[0].proxies
    assert (mine.remote, mine.node_flags, mine.proxy_flags, mine.sent) == (0, "E", 7, 2767)
    assert mine.joined
    (theirs,) = found.hosts[0].proxies
    assert (theirs.remote, theirs.proxy_flags, theirs.joined) == (1, None, False)


INFO = "name=DVS\nnodeid=1\n"


def test_a_side_without_its_dvs_or_a_proxy_is_drift() -> None:
    """The report must not say converged of nodes that are up and not joined."""
    lab = lab_of(2)
    whole = {"info": INFO, "nodes": NODES, "proxies/info": PROXIES}
    alone = {"info": INFO, "nodes": NODES, "proxies/info": PROXIES.replace(" 7 ", " 3 ")}
    everyone = {0, 1, 2}
    assert plan.dvs_drift(lab, {1: whole}, {0, 1}) == {1: []}
    (line,) = plan.dvs_drift(lab, {1: alone}, {0, 1})[1]
    assert line.startswith("node1: not joined with node0, its proxy ")
    assert "node1: not joined with node2" in plan.dvs_drift(lab, {1: whole}, everyone)[1][0]
    (line,) = plan.dvs_drift(lab, {2: {}}, everyone)[2]
    assert line == "node2: its DVS is not initialised, /proc/dvs/info is not there"
    # What was not heard, or is not up, has no word in it.
    assert plan.dvs_drift(lab, {1: {}}, {0, 2}) == {}
    assert plan.dvs_drift(lab_of(dvs=None), {0: {}, 1: {}}, everyone) == {}


def test_links_are_the_labs_own_in_order() -> None:
    lab = lab_of(2)
    mark = "umlaan:umlaan"
    links = [
        Link("HTAP2", "tun", alias=mark, tap=True, up=True, master="br0"),
        Link("HTAP", "tun", alias=mark, tap=True),
        Link("docker0", "bridge"),
        Link("br0", "bridge", alias=mark, up=True, addresses=("192.168.1.10/24",)),
    ]
    found = Found("here", links={link.name: link for link in links})
    rows = report(lab, live_of(lab), found).hosts[0].links
    assert [(row.name, row.kind, row.node) for row in rows] == [
        ("br0", "bridge", None),
        ("HTAP", "tap", "node1"),
        ("HTAP2", "tap", "node2"),
    ]


def test_a_plan_of_everything_counts_as_drift() -> None:
    found = StatusOutput(
        lab="x", verdict="converged", compared="live", at="now", hosts=(), nodes=()
    )
    change = ChangeOutput(host="@local", operation="DVS | built", reason="DVS ipc: rebuild")
    assert found.drift() == []
    assert found.model_copy(update={"changes": (change,)}).drift() == ["DVS ipc: rebuild"]
    assert plan.status(lab_of(), [], [], {}, "now", (change,)).verdict == "drifted"
    assert plan.status(lab_of(), [], [], {}, "now", ()).compared == "everything"


def test_the_report_for_a_person() -> None:
    from rich.console import Console

    lab = lab_of(2)
    console = Console(width=140, record=True, file=io.StringIO())
    for part in rendered(report(lab, live_of(lab))):
        console.print(part)
    text = console.export_text()
    for word in ("node1", "node2", "192.168.1.102", "6.1.7", "as built", "45 MB", "8 min"):
        assert word in text
    assert "tap HTAP: make, it is missing" in text


@pytest.mark.parametrize("verb", OUTPUTS)
def test_published_schemas_are_those_of_the_code(verb: str) -> None:
    """umlaan schema VERB > docs/schemas/VERB.json"""
    published = (REPO / f"docs/schemas/{verb}.json").read_text()
    assert published == text_of(verb)
    jsonschema.Draft202012Validator.check_schema(json.loads(published))


def test_a_report_fits_its_schema() -> None:
    lab = lab_of(2)
    schema = json.loads((REPO / "docs/schemas/status.json").read_text())
    jsonschema.validate(json.loads(report(lab, live_of(lab)).model_dump_json()), schema)


def guest(tmp_path: Path, **files: str) -> dict[str, Any]:
    """A guest that is this machine: its tree and tables below tmp_path, sh in ssh's place."""
    import hashlib

    tree, state = tmp_path / "dvs", tmp_path / "proc"
    (state / "proxies").mkdir(parents=True)
    (state / "nodes").write_text(NODES)
    tree.mkdir()
    manifest = {"sub": ["dir", 493, ""]}
    for name, text in files.items():
        (tree / name).write_text(text)
        manifest[name] = ["file", 420, hashlib.sha256(text.encode()).hexdigest()]
    stamp = tmp_path / "stamp.json"
    stamp.write_text(json.dumps({"manifest": manifest, "bytes": 100}))
    return {"ssh": ["sh", "-c"], "state": str(state), "tree": str(tree), "stamp": str(stamp)}


def heard(one: dict[str, Any], seconds: float = 10.0) -> dict[str, Any]:
    return live.listen([live.Asked("node1", one)], time.monotonic() + seconds)["node1"]


def test_a_guest_is_asked_in_one_shell(tmp_path: Path) -> None:
    one = guest(tmp_path, a="1", b="2")
    view = heard(one)
    assert view["heard"] == "answered"
    assert view["tables"] == {"nodes": NODES}
    assert view["tree"] == {"compared": True, "missing": False, "bad": []}
    Path(one["tree"], "a").write_text("changed")
    Path(one["tree"], "b").unlink()
    assert heard(one)["tree"]["bad"] == ["a", "b"]


def test_a_guest_without_the_tree(tmp_path: Path) -> None:
    one = guest(tmp_path, a="1")
    Path(one["tree"], "a").unlink()
    Path(one["tree"]).rmdir()
    assert heard(one)["tree"]["missing"]


def test_a_large_tree_is_not_read(tmp_path: Path) -> None:
    one = guest(tmp_path, a="1")
    stamp = json.loads(Path(one["stamp"]).read_text())
    Path(one["stamp"]).write_text(json.dumps({**stamp, "bytes": live.SMALL_TREE + 1}))
    Path(one["tree"], "a").write_text("changed")
    assert heard(one)["tree"] == {"compared": False, "missing": False, "bad": []}


def test_a_late_guest_and_a_broken_one(tmp_path: Path) -> None:
    slow = {**guest(tmp_path, a="1"), "ssh": ["sh", "-c", "sleep 3"]}
    began = time.monotonic()
    assert heard(slow, 0.3)["heard"] == "late"
    assert time.monotonic() - began < 1.5
    assert heard({**slow, "ssh": ["false"]})["heard"] == "failed"


def test_the_agents_look_at_nodes_that_are_not_there(tmp_path: Path) -> None:
    lab = lab_of(state_dir=str(tmp_path / "state"))
    words = [sys.executable, "-S", "-m", "umlaan.agent", "live"]
    request = plan.question(lab, lab.hosts[0], 1.0)
    done = subprocess.run([*words, request], cwd=REPO, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["guests"] == {} and answer["stamps"] == {} and answer["tables"] == {}
    assert not answer["rows"]["node1"]["running"]
    node = report(lab, answer).nodes[0]
    assert node.state == "absent" and not node.root_exists
    assert node.dvs is not None and node.dvs.state == "not built"
