"""What waits for a host kernel that does not run yet: said, never failed, never a change."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.state import State

from tests.operations.support import LAB, NODE, commands_of
from tests.operations.test_dvsup import DATA, view
from umlaan.model.lab import HostData, build_lab
from umlaan.operations import dvsup, node, pending, verify

ROWS = [HostData(LAB, False, DATA), HostData(NODE, True, {**DATA, "lab_host": LAB})]
NODE1 = build_lab(ROWS).node("node1")
WANTED = "host kernel: running 6.1, wanted 4.9.88: reboot needed"
DOWN = {"running": False, "answers": None, "uptime": None, "root_exists": True, "record": None}
BARE = {"files": {}, "hashes": {}, "services": {}, "dcs": {"0": {"pid": None, "fault": "missing"}}}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the run keeps: which lab hosts' DVS waits."""
    kept = SimpleNamespace(nodes={}, tables=[], waiting=set())
    for module in (pending, verify):
        monkeypatch.setattr(module, "current", lambda: kept)
    return kept


def kernel_is_awaited(state: State) -> None:
    pending.kernels(state)[LAB] = (False, WANTED)


def host_side(found: dict[str, Any], before: Callable[[State], None]) -> list[str]:
    answer = {"dvsup look": json.dumps({"node0": found})}
    return commands_of(dvsup.up, 0, data=DATA, responses=answer, before=before)


def bare() -> dict[str, Any]:
    return {**view(0, "own"), **BARE}


def test_the_hosts_dvs_waits_for_its_kernel(
    run: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    assert host_side(bare(), kernel_is_awaited) == []
    assert run.waiting == {LAB}
    assert f"node0: its DVS waits: {WANTED}" in caplog.text


def test_a_run_limited_to_its_nodes_says_the_same(
    run: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    def limit(state: State) -> None:
        state.limit_hosts = [state.inventory.get_host(NODE)]

    old = {"release": "6.1", "entry": "", "boot_id": "b1"}
    found = {"kernel": {"release": "4.9.88"}, "entry": "umlaan-new", "running": old}
    found |= {"saved": "deb", "next": "", "trial": None}
    answers = {
        "dvsup look": json.dumps({"node0": bare()}),
        "host-kernel state": json.dumps(found),
    }
    more: Any = {"on": NODE, "responses": answers}
    data = {**DATA, "host_kernel": {"arch": "x86_64"}}
    assert commands_of(dvsup.up, 0, data=data, before=limit, **more) == []
    assert run.waiting == {LAB}
    assert "node0: its DVS waits: host kernel: running 6.1, wanted 4.9.88: reboot" in caplog.text
    run.waiting.clear()
    assert len(commands_of(dvsup.up, 0, data=DATA, before=limit, **more)) == 1


def test_without_a_kernel_to_come_it_is_brought_up(run: SimpleNamespace) -> None:
    assert len(host_side(bare(), lambda state: None)) == 1
    assert run.waiting == set()


def test_one_that_runs_on_the_kernel_of_now_is_kept(run: SimpleNamespace) -> None:
    assert host_side(view(0, "own"), kernel_is_awaited) == []
    assert run.waiting == set()


@pytest.mark.parametrize(
    ("operation", "argument"),
    [(dvsup.up, 1), (dvsup.joined, 1), (node.running, NODE1), (verify.both_sides, None)],
)
def test_a_nodes_part_waits_with_it(
    run: SimpleNamespace, caplog: pytest.LogCaptureFixture, operation: Any, argument: Any
) -> None:
    run.waiting.add(LAB)
    words = [] if argument is None else [argument]
    answer = {"node-state": json.dumps({"node1": DOWN})}
    more: Any = {"on": NODE, "data": DATA, "responses": answer, "before": kernel_is_awaited}
    assert commands_of(operation, *words, **more) == []
    assert "waits for the DVS of its lab host" in caplog.text


def test_a_node_that_only_waits_is_down_and_not_absent(run: SimpleNamespace) -> None:
    run.waiting.add(LAB)
    root = {**DATA, "lab_host": LAB, "root": "/dev/sdb6"}
    answer = {"node-state": json.dumps({"node1": DOWN})}
    more: Any = {"on": NODE, "data": root, "responses": answer, "before": kernel_is_awaited}
    assert commands_of(verify.both_sides, **more) == []
    assert run.nodes == {"node1": "down"}
