"""operations.together: a peer's end -> all nodes of the lab are stopped for a new start together.

The tables are those of the real DVS, whose proxies are like that.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from pyinfra.api.state import State, StateStage

from tests.operations.dvs_sides import Peer, row_of, view_of
from tests.operations.support import LAB, commands_of
from tests.operations.test_dvsup import order_of
from tests.unit.test_dvs_sides import SAMPLE
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.operations import together

NUMBERS = (0, 1, 2)
NAMES = [f"@uml/node{number}" for number in NUMBERS]
PROGRAMS = {**SAMPLE["programs"], "proxy_restart": "lab"}
DATA: dict[str, Any] = {"host_dvk": False, "dvs": {**SAMPLE, "programs": PROGRAMS}}


def lab_of(data: dict[str, Any] = DATA) -> Lab:
    rows = [HostData(LAB, False, data)]
    rows += [HostData(name, True, {**data, "lab_host": LAB}) for name in NAMES]
    return build_lab(rows)


def view(number: int, **peers: Peer) -> dict[str, Any]:
    """A side with its scripts as wanted; peers: {nodeN: (node flags, proxy flags, counters)}."""
    rows = {n: peers.get(f"node{n}", ("E", 7, 5)) for n in NUMBERS if n != number}
    return view_of(lab_of(), number, "runit", rows)


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {**row_of(lab_of(), f"node{number}"), **changes}


DEAD = {"running": False, "answers": None, "uptime": None}


def ended(
    number: int, rows: list[dict[str, Any]], views: list[dict[str, Any]], **more: Any
) -> tuple[list[str], list[str]]:
    reasons: list[tuple[str, str]] = []
    names = [name.removeprefix("@uml/") for name in NAMES]
    answers = {
        "node-state": json.dumps(dict(zip(names, rows, strict=True))),
        "dvsup look": json.dumps(dict(zip(names, views, strict=True))),
    }
    commands = commands_of(
        together.ended,
        lab_of().node(f"node{number}"),
        on=NAMES[number],
        reasons=reasons,
        **{"data": DATA, "responses": answers, "nodes": NAMES, **more},
    )
    return commands, [text for _, text in reasons]


UP = [row(number) for number in NUMBERS]
WELL = [view(number) for number in NUMBERS]
# A killed peer sends no farewell: the survivors' tables still say that it is connected.
KILLED = [row(0), row(1, **DEAD), row(2)]
GONE = [view(0), {"answers": False, "error": "x"}, view(2)]


def test_a_lab_whose_pairs_are_joined_is_left_alone() -> None:
    for number in NUMBERS:
        assert ended(number, UP, WELL) == ([], [])


def test_a_killed_peer_has_the_others_start_anew_with_it() -> None:
    for number in (0, 2):
        commands, reasons = ended(number, KILLED, GONE)
        assert [command.split()[1] for command in commands] == ["node-stop"]
        assert reasons == [
            f"node{number}: restart it with the others, node0's proxy to node1 outlives it, "
            "node1: start, it is down (killed) (and 1 more)"
        ]
    # The launch starts it; there is nothing of it to be stopped.
    assert ended(1, KILLED, GONE) == ([], [])


def test_a_plan_says_so_as_well() -> None:
    commands, reasons = ended(0, KILLED, GONE, stage=StateStage.Prepare)
    assert len(commands) == 1 and "node0: restart it with the others" in reasons[0]


def test_a_peer_that_this_run_restarts_takes_the_others_along() -> None:
    other = row(1)
    other["record"] = copy.deepcopy(other["record"])
    other["record"]["argv"] = [w.replace("mem=", "mem=9") for w in other["record"]["argv"]]
    commands, reasons = ended(2, [row(0), other, row(2)], WELL)
    assert [command.split()[1] for command in commands] == ["node-stop"]
    assert "node1: restart, mem" in reasons[0]


def test_a_lab_that_was_never_joined_is_only_started() -> None:
    fresh = dict.fromkeys(("node0", "node1", "node2"), ("2", 1, 0))
    views = [view(0, **fresh), {"answers": False, "error": "x"}, view(2, **fresh)]
    # The two that run are young: their proxies may still be connecting.
    rows = [row(0, uptime=5.0), row(1, **DEAD), row(2, uptime=5.0)]
    assert ended(0, rows, views) == ([], [])


def test_proxies_that_never_connected_get_their_time_and_not_more() -> None:
    views = [view(0, node1=("2", 1, 0)), view(1), view(2)]
    young = [row(number, uptime=20.0) for number in NUMBERS]
    assert ended(1, young, views) == ([], [])
    commands, reasons = ended(1, UP, views)
    assert len(commands) == 1
    assert reasons == [
        "node1: restart it with the others, node0's proxy to node1 is bound, "
        "neither sender nor receiver is connected"
    ]
    # A proxy that does not stand yet is only to be started.
    bare = view(1)
    bare["files"] = {}
    for first in (view(0, node1=("2", 1, 0)), view(0, node1=("2", 0, 0))):
        assert ended(2, UP, [first, bare, view(2, node1=("2", 1, 0))]) == ([], [])
    # One that had a connection and lost it makes no other: nothing is gained by waiting.
    lost = [view(0, node1=("2", 1, 7)), view(1), view(2)]
    assert len(ended(1, young, lost)[0]) == 1


def test_a_proxy_that_has_to_be_ended_takes_all_nodes_and_its_new_script_goes_first() -> None:
    changed = copy.deepcopy(WELL)
    path = "/etc/umlaan/dvs/dvs-proxy-node2/run"
    changed[1]["hashes"][path] = "0" * 64
    commands, reasons = ended(1, UP, changed)
    assert [command.split()[1] for command in commands] == ["dvsup", "node-stop"]
    assert list(order_of(commands[0], "write")["files"]) == [path]
    assert reasons == [f"node1: restart it with the others, node1 {path}: write, it differs"]
    commands, _ = ended(0, UP, changed)
    assert [command.split()[1] for command in commands] == ["node-stop"]


def test_a_run_that_may_not_touch_them_all_touches_none() -> None:
    def limit(state: State) -> None:
        state.limit_hosts = [state.inventory.get_host(name) for name in NAMES[:2]]

    assert ended(0, KILLED, GONE, before=limit) == ([], [])
    assert ended(0, KILLED, GONE, failed=[NAMES[2]]) == ([], [])
    # Nor for a peer that this run cannot start.
    assert ended(0, KILLED, GONE, failed=[NAMES[1]]) == ([], [])


def test_other_labs_are_not_restarted() -> None:
    programs = {**PROGRAMS, "proxy_restart": "node"}
    for tree in ({**SAMPLE, "programs": programs}, SAMPLE, None):
        assert ended(2, KILLED, GONE, data={**DATA, "dvs": tree}) == ([], [])
    # A machine's own kernel takes part: its proxies stay as they are until it is booted anew.
    assert ended(2, KILLED, GONE, data={**DATA, "host_dvk": True}, nodes=NAMES[1:]) == ([], [])
