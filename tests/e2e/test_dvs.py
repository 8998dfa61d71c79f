"""The DVS of the sample tree on real nodes: connected, killed, cut off, a DC's init lost, joined.

The tests of this module share one lab and run in order: each leaves it converged.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, Result
from umlaan.agent import dvstables

pytestmark = pytest.mark.timeout(1800)


def table(lab: Lab, name: str) -> str:
    return (lab.state_dir / "run/dvs" / name).read_text()


def services(lab: Lab) -> dict[str, dict[str, int]]:
    status = json.loads((lab.state_dir / "run/supervise.json").read_text())
    return dict(status["services"])


def flags(lab: Lab, peer: int) -> tuple[str, int]:
    """(node flag, proxy flags) of a peer, as node0 has them."""
    node = dvstables.nodes(table(lab, "nodes")).get(peer, {"flags": "-"})
    proxy = dvstables.proxies(table(lab, "proxies/info")).get(peer, {"flags": 0})
    return node["flags"], proxy["flags"]


def until_flags(lab: Lab, peer: int, wanted: tuple[str, int], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while (found := flags(lab, peer)) != wanted:
        assert time.monotonic() < deadline, f"node{peer} is {found}, not {wanted}"
        time.sleep(0.2)


def up(result: Result, changed: bool = True) -> Result:
    assert (result.verdict, result.code) == ("up", 0), result.output
    assert (result.changed > 0) == changed, result.output
    return result


def test_one_run_joins_the_pair_and_verifies_it_from_both_sides(lab: Lab) -> None:
    result = up(lab.deploy())
    assert flags(lab, 1) == ("E", 7)
    rows = [line.split() for line in result.output.splitlines()]
    said = {" ".join(row[:2]): row[-1] for row in rows if len(row) > 2}
    assert said["message loop"] == said["block copy"] == "ok", result.output
    assert any(row[:3] == ["node0", "↔", "node1"] and row[-1] == "ok" for row in rows)
    launch = json.loads((lab.state_dir / "nodes/node1/launch.json").read_text())
    assert "nsenter" in launch["prefix"]


def test_the_second_run_changes_nothing(lab: Lab) -> None:
    up(lab.deploy(), changed=False)


def test_a_killed_proxy_comes_back_by_itself(lab: Lab) -> None:
    before = services(lab)["dvs-proxy-node1"]["pid"]
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while services(lab)["dvs-proxy-node1"]["pid"] in (before, None):
        assert time.monotonic() < deadline, "nobody started the proxy again"
        time.sleep(0.05)
    until_flags(lab, 1, ("E", 7))
    up(lab.deploy(), changed=False)


def test_a_side_cut_off_is_told_with_both_tables_and_then_repaired(lab: Lab) -> None:
    stopped = lab.exec("@uml/node1", "pkill -STOP -x tcp_proxy")
    assert stopped.code == 0, stopped.output
    until_flags(lab, 1, ("2", 1))
    result = lab.pyinfra("tasks/verify.py")
    assert (result.verdict, result.code) == ("failed", 1), result.output
    assert "node0 says: its proxy is bound, neither sender nor receiver" in result.output
    assert "node0: proxies" in result.output and "node1: proxies" in result.output
    assert ">1<" in result.output and ">2<" in result.output
    lab.data["dvs.programs.connect_timeout"] = "30"
    repaired = up(lab.deploy())
    assert "their proxies are started anew" in repaired.output
    del lab.data["dvs.programs.connect_timeout"]
    up(lab.deploy(), changed=False)


def test_a_dead_dc_is_made_again_with_its_nodes(lab: Lab) -> None:
    text = (lab.state_dir / "run/DC0.sh").read_text()
    os.kill(int(text.splitlines()[0].partition("=")[2]), signal.SIGKILL)
    result = up(lab.deploy())
    assert "node1: start" in result.output
    assert flags(lab, 1) == ("E", 7)
    up(lab.deploy(), changed=False)


def test_three_nodes_have_a_proxy_for_each_pair(lab: Lab) -> None:
    lab.nodes = ["@uml/node1", "@uml/node2", "@uml/node3"]
    result = up(lab.deploy())
    assert [flags(lab, peer) for peer in (1, 2, 3)] == [("E", 7)] * 3
    for low, high in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
        row = next(
            line.split()
            for line in result.output.splitlines()
            if line.split()[:3] == [f"node{low}", "↔", f"node{high}"] and "join" not in line
        )
        assert row[-1] == "ok", result.output
    up(lab.deploy(), changed=False)


def test_a_host_leaves_the_dvs_to_its_nodes(lab: Lab) -> None:
    lab.nodes, lab.data["host_dvk"] = ["@uml/node0", "@uml/node1"], "False"
    left = up(lab.deploy())
    assert "node3: stop, it runs and is no longer in the inventory" in left.output
    assert "node0: end dvs-proxy-node1" in left.output and "node0: end DC0" in left.output
    assert "node1: stop, the DC that it runs in ends" in left.output
    assert not (lab.state_dir / "services").exists()
    up(lab.deploy(), changed=False)


def test_where_proxies_ask_for_it_a_killed_node_takes_the_others_along(lab: Lab) -> None:
    lab.data["dvs.programs.proxy_restart"] = "lab"
    up(lab.deploy(), changed=False)
    before = _launched(lab, "node0")
    os.killpg(_launched(lab, "node1"), signal.SIGKILL)
    result = up(lab.deploy())
    said = "node0: restart it with the others, node0's proxy to node1 outlives it, node1: start"
    assert said in result.output, result.output
    assert "node0: stopped by cad" in result.output and _launched(lab, "node0") != before
    up(lab.deploy(), changed=False)
    del lab.data["dvs.programs.proxy_restart"]


def _launched(lab: Lab, name: str) -> int:
    return int(json.loads((lab.state_dir / f"nodes/{name}/launch.json").read_text())["pid"])


def test_a_host_takes_the_dvs_up_again(lab: Lab) -> None:
    lab.nodes = ["@uml/node1"]
    del lab.data["host_dvk"]
    back = up(lab.deploy())
    assert "node0: stop, it runs and is no longer in the inventory" in back.output
    assert flags(lab, 1) == ("E", 7)
    up(lab.deploy(), changed=False)


def test_destroy_leaves_no_dc_and_no_proxy(lab: Lab) -> None:
    inits = [Path(f"/proc/{row['pid']}") for row in services(lab).values()]
    result = lab.destroy()
    assert (result.verdict, result.code) == ("absent", 0), result.output
    assert not any(path.exists() and "Z" not in _state(path) for path in inits)
    assert lab.destroy().changed == 0


def _state(path: Path) -> str:
    return (path / "stat").read_text().rsplit(")", 1)[1].split()[0]
