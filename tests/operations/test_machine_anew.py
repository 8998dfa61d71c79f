"""operations.together.rebooted: a lab host whose proxies end only with it is booted anew.

The tables are those of the real DVS beside a host with its DVK.
"""

from __future__ import annotations

import copy
import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.state import State, StateStage

from tests.operations.dvs_sides import row_of, view_of
from tests.operations.support import LAB, commands_of
from tests.operations.test_dvsup import order_of
from tests.unit.test_dvs_sides import SAMPLE
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.operations import dvsup, pending, together
from umlaan.plan import dvssides
from umlaan.plan import together as plan

NODE = "@uml/node1"
PROGRAMS = {**SAMPLE["programs"], "proxy_restart": "lab"}
DATA: dict[str, Any] = {"reboot": "when_needed", "dvs": {**SAMPLE, "programs": PROGRAMS}}


def lab_of(data: dict[str, Any] = DATA) -> Lab:
    return build_lab([HostData(LAB, False, data), HostData(NODE, True, {**data, "lab_host": LAB})])


def view(number: int, flag: str = "E", flags: int = 7, count: int = 5) -> dict[str, Any]:
    """A side with its scripts as wanted, and its row of the other one."""
    return view_of(
        lab_of(), number, ("systemd", "runit")[number], {1 - number: (flag, flags, count)}
    )


def row(**changes: Any) -> dict[str, Any]:
    """node1 as it runs as declared, in the DC."""
    return {**row_of(lab_of(), "node1", {"pid": 10, "start": 5, "fault": None}), **changes}


DEAD = {"running": False, "answers": None, "uptime": None}
SILENT = {"answers": False, "error": "x"}
KILLED = (row(**DEAD), [view(0), SILENT])


def rebooted(
    node: dict[str, Any], views: list[dict[str, Any]], **more: Any
) -> tuple[list[str], list[str]]:
    reasons: list[tuple[str, str]] = []
    answers = {
        "node-state": json.dumps({"node1": node}),
        "dvsup look": json.dumps({"node0": views[0], "node1": views[1]}),
    }
    arguments = {"data": DATA, "responses": answers, "reasons": reasons, **more}
    commands = commands_of(together.rebooted, 0, **arguments)
    return commands, [text for _, text in reasons]


PATH = f"{dvssides.sides(lab_of())[0]['folder']}/dvs-proxy-node1/run"
WHY = f"(dvs.programs.proxy_restart is lab): {dvsup.REBOOT}"


def up(host: dict[str, Any], **more: Any) -> tuple[list[str], str]:
    """The stage before: its commands, and the last that it said."""
    reasons: list[tuple[str, str]] = []
    answers = {"dvsup look": json.dumps({"node0": host})}
    commands = commands_of(
        dvsup.up, 0, **{"data": DATA, "responses": answers, "reasons": reasons, **more}
    )
    return commands, reasons[-1][1] if reasons else ""


def test_a_pair_that_is_joined_is_left_alone() -> None:
    assert rebooted(row(), [view(0), view(1)]) == ([], [])


def test_a_killed_guest_takes_the_machine_along_and_starts_after_its_boot() -> None:
    (stop, reboot, up), reasons = rebooted(*KILLED)
    # Else the boot would start it, before what this run still has to change of it.
    assert "node-stop" in stop and '"forget": true' in stop
    assert "_again" in reboot and "1800" not in stop
    order = order_of(up, "up")
    assert (order["files"], order["restart"], order["kind"]) == ({}, [], "systemd")
    assert reasons == [
        "node0: reboot it, its proxies end with it: node0's proxy to node1 outlives it, "
        "node1: start, it is down (killed)"
    ]


def test_a_plan_says_so_as_well() -> None:
    commands, reasons = rebooted(*KILLED, stage=StateStage.Prepare)
    assert len(commands) == 3 and "node0: reboot it" in reasons[0]


def test_a_guest_that_this_run_restarts_is_no_other() -> None:
    changed = row()
    changed["record"] = copy.deepcopy(changed["record"])
    changed["record"]["argv"] = [w.replace("mem=", "mem=9") for w in changed["record"]["argv"]]
    commands, reasons = rebooted(changed, [view(0), view(1)])
    assert len(commands) == 3 and "node1: restart, mem" in reasons[0]


def test_a_machine_that_was_booted_a_moment_ago_is_not_booted_again() -> None:
    # Its proxies stand, nobody has connected yet.
    fresh = view(0, flag="2", flags=1, count=0)
    assert rebooted(row(**DEAD), [fresh, SILENT]) == ([], [])
    assert rebooted(row(uptime=5.0), [fresh, view(1, flag="2", flags=1, count=0)]) == ([], [])


def test_proxies_that_hang_get_their_time_and_not_more() -> None:
    views = [view(0, flag="2", flags=3, count=0), view(1, flag="2", flags=1, count=0)]
    commands, reasons = rebooted(row(), views)
    assert len(commands) == 3 and "its sender connected" in reasons[0]


def test_the_machine_s_own_new_script_is_written_before_the_boot() -> None:
    changed = view(0)
    changed["hashes"][PATH] = "0" * 64
    for kind in ("lab", "node"):
        programs = {**PROGRAMS, "proxy_restart": kind}
        data = {**DATA, "dvs": {**SAMPLE, "programs": programs}}
        (write, stop, _, _), reasons = rebooted(row(), [changed, view(1)], data=data)
        assert list(order_of(write, "write")["files"]) == [PATH] and "node-stop" in stop
        assert reasons == [
            f"node0: reboot it, its proxies end with it: node0 {PATH}: write, it differs"
        ]
        # The stage before leaves it to this one.
        assert up(changed, data=data)[0] == []


def test_a_proxy_that_never_stood_is_only_started() -> None:
    changed = view(0, flag="2", flags=0, count=0)
    changed["hashes"][PATH] = "0" * 64
    changed["services"]["dvs-proxy-node1"]["up"] = False
    assert rebooted(row(), [changed, view(1, flag="2", flags=1, count=0)]) == ([], [])
    # One that died keeps its slot in the DVK.
    died = copy.deepcopy(changed)
    died["files"]["proxies/info"] = view(0)["files"]["proxies/info"]
    assert len(rebooted(row(), [died, view(1)])[0]) == 4


def test_proxies_that_this_run_has_started_get_their_time() -> None:
    def starts(state: State) -> None:
        state.umlaan_dvs_begun = {"node0"}  # type: ignore[attr-defined]

    views = [view(0, flag="2", flags=1, count=0), view(1, flag="2", flags=1, count=0)]
    assert rebooted(row(), views, before=starts) == ([], [])
    assert len(rebooted(row(), views)[0]) == 3


def test_only_where_it_is_a_proxy_s_way_and_may_be() -> None:
    for changes in (
        {"reboot": "never"},
        {"host_dvk": False},
        {"dvs": SAMPLE},
        {"dvs": None},
        # One whose node is started anew alone: its peer connects again.
        {"dvs": {**SAMPLE, "programs": {**PROGRAMS, "proxy_restart": "node"}}},
    ):
        assert rebooted(*KILLED, data={**DATA, **changes}) == ([], [])
    # Nothing would bring its DVS back.
    assert rebooted(KILLED[0], [{**view(0), "kind": "own"}, SILENT]) == ([], [])


def test_a_run_that_may_not_touch_all_touches_none() -> None:
    def limit(state: State) -> None:
        state.limit_hosts = [state.inventory.get_host(LAB)]

    assert rebooted(*KILLED, before=limit) == ([], [])
    assert rebooted(*KILLED, failed=[NODE]) == ([], [])

    def waits(state: State) -> None:
        pending.kernels(state)[LAB] = (False, "running A, wanted B: reboot needed")

    assert rebooted(*KILLED, before=waits) == ([], [])


def test_a_machine_beside_another_one_is_left_to_the_user() -> None:
    # Rebooted alone it would have the other's proxies outlive it, at each run anew.
    others = {"@fake/other": {"number": 5, "network": {"address": "192.168.1.11/24"}}}
    assert rebooted(*KILLED, hosts=others) == ([], [])
    changed = view(0)
    changed["hashes"][PATH] = "0" * 64
    _, said = up(changed, hosts=others)
    assert said == f"node0: dvs-proxy-node1 can only be ended with the machine {WHY}"


def test_what_the_reboot_cannot_do_is_said_by_the_stage_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pending, "current", lambda: SimpleNamespace(waiting=set()))
    changed = view(0)
    changed["hashes"][PATH] = "0" * 64

    def waits(state: State) -> None:
        pending.kernels(state)[LAB] = (True, "host kernel: B did not come up when tried")

    more: list[dict[str, Any]] = [{"before": waits}, {"failed": [NODE]}]
    for one in more:
        (write, _), said = up(changed, **one)
        assert list(order_of(write, "write")["files"]) == [PATH]
        assert said == f"node0: dvs-proxy-node1 can only be ended with the machine {WHY}"


def test_a_node_that_fails_meanwhile_keeps_the_machine_up_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed = view(0)
    changed["hashes"][PATH] = "0" * 64
    # Also one that is down or silent: it would be stopped, and nothing of this run starts it.
    for node in (row(), row(**DEAD), row(answers=False)):
        caplog.clear()
        assert rebooted(node, [changed, view(1)], failed=[NODE]) == ([], [])
        assert "node0: not rebooted, node1 failed in this run: node0 " + PATH in caplog.text


def test_a_node_without_the_dvs_is_nobody_s_lost_peer() -> None:
    data = {**DATA, "lab_host": LAB}
    rows = [HostData(LAB, False, DATA), HostData(NODE, True, data)]
    lab = build_lab([*rows, HostData("@uml/node2", True, {**data, "dvs": None})])
    views = {"node0": view(0), "node1": view(1)}
    uptimes = {"node0": math.inf, "node1": 600.0}
    assert plan.lost(dvssides.sides(lab), views, {"node2": "node2: start"}, uptimes) == []


def test_a_silent_guest_that_this_run_starts_anew_counts_in_its_plan() -> None:
    # At execute an earlier stage has stopped it by now.
    old, young = row(answers=False, uptime=9999.0), row(answers=False, uptime=5.0)
    commands, reasons = rebooted(old, [view(0), SILENT], stage=StateStage.Prepare)
    assert len(commands) == 3
    assert reasons[0].endswith("node1: restart, it is up and does not answer")
    assert rebooted(young, [view(0), SILENT], stage=StateStage.Prepare) == ([], [])
