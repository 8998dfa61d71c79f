"""operations.dvsup: what a side's tables say -> exact orders, and nothing where nothing differs."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from tests.operations.support import LAB, NODE, commands_of
from tests.unit.test_dvs_sides import SAMPLE
from umlaan.agent import dvsservices
from umlaan.agent import dvsup as agent
from umlaan.model.lab import HostData, build_lab
from umlaan.operations import dvsup
from umlaan.plan import dvssides

DATA = {"dvs": SAMPLE}
ROWS = [HostData(LAB, False, DATA), HostData(NODE, True, {**DATA, "lab_host": LAB})]
SIDES = dvssides.sides(build_lab(ROWS))
HEAD = "ID Flags Proxies -pxsent- -pxrcvd- 10987654321098765432109876543210 Name\n"
MAP = "-" * 31 + "X"


def view(number: int, kind: str, **changes: Any) -> dict[str, Any]:
    """A side that is up as declared; changes replace parts of it."""
    side, peer = SIDES[number], 1 - number
    nodes = HEAD + "".join(
        f" {n}     {'6' if n == number else 'E'}  {-1 if n == number else n}  5  5 {MAP} node{n}\n"
        for n in (0, 1)
    )
    files = {
        "info": f"name=DVS\nnodeid={number}\ndbglvl=0\n",
        "nodes": nodes,
        "proxies/info": f"  {peer}     7   742   743   node{peer} {MAP}\n",
        "DC0/procs": "",
    }
    return {
        "answers": True,
        "error": "",
        "files": {**files, **changes.pop("files", {})},
        "dcs": {"0": {"pid": 10, "fault": None}},
        "pids": [1, 10, 742, 743],
        "hashes": {p: dvssides.digest(t) for p, t in dvssides.files_of(side, kind).items()},
        "kind": kind,
        "services": {name: {"up": True, "pid": 9} for name in side["services"]},
        **changes,
    }


def up(number: int, found: dict[str, Any], **more: Any) -> tuple[list[str], list[str]]:
    reasons: list[tuple[str, str]] = []
    commands = commands_of(
        dvsup.up,
        number,
        on=LAB if number == 0 else NODE,
        responses={"dvsup look": json.dumps({f"node{number}": found})},
        reasons=reasons,
        **{"data": DATA, **more},
    )
    return commands, [text for _, text in reasons]


def order_of(command: str, verb: str) -> dict[str, Any]:
    words = shlex.split(command)
    assert words[:3] == ["umlaan-agent", "dvsup", verb]
    return dict(json.loads(words[3]))


def test_a_host_and_a_guest_that_are_up_are_left_alone() -> None:
    assert up(0, view(0, "own")) == ([], [])
    assert up(1, view(1, "runit")) == ([], [])
    assert up(1, view(1, "systemd")) == ([], [])


def test_a_bare_side_gets_everything_in_one_order() -> None:
    bare = view(1, "runit", files={}, hashes={}, services={})
    bare["files"] = {}
    bare["dcs"] = {"0": {"pid": None, "fault": "/run/umlaan/DC0.sh names no init"}}
    commands, reasons = up(1, bare)
    assert reasons == [
        "node1: write the DVS's scripts and services, 3 files",
        "node1: initialise the DVS, /run/sample-dvs/info is not there",
        "node1: make DC0, /run/umlaan/DC0.sh names no init",
    ]
    order = order_of(commands[0], "up")
    assert sorted(order["files"]) == [
        "/etc/umlaan/dvs/dvs-join/run",
        "/etc/umlaan/dvs/dvs-proxy-node0/run",
        "/etc/umlaan/dvs/up",
    ]
    assert (order["kind"], order["reinit"], order["restart"]) == ("runit", False, [])


def test_only_the_service_whose_script_differs_is_started_anew() -> None:
    found = view(0, "own")
    path = f"{SIDES[0]['folder']}/dvs-proxy-node1/run"
    found["hashes"][path] = "0" * 64
    commands, reasons = up(0, found)
    assert reasons == [f"node0 {path}: write, it differs"]
    order = order_of(commands[0], "up")
    assert list(order["files"]) == [path] and order["restart"] == ["dvs-proxy-node1"]


def test_a_dead_dc_is_made_again() -> None:
    found = view(0, "own", dcs={"0": {"pid": 10, "fault": "its init 10 is dead"}})
    commands, reasons = up(0, found)
    assert reasons == ["node0: make DC0, its init 10 is dead"]
    assert order_of(commands[0], "up")["files"] == {}


def test_another_cluster_or_debug_level_is_initialised_again() -> None:
    found = view(0, "own", files={"info": "name=OTHER\nnodeid=0\ndbglvl=FFFFFF\n"})
    commands, reasons = up(0, found)
    assert reasons == [
        "node0: initialise the DVS again, name OTHER → DVS",
        "node0: initialise the DVS again, debug level 16777215 → 0",
    ]
    assert order_of(commands[0], "up")["reinit"] is True


def test_a_service_that_does_not_run_is_started_and_says_how_it_ended() -> None:
    found = view(0, "own")
    found["services"]["dvs-join"] = {"up": False, "pid": None, "said": "exit code 1"}
    _, reasons = up(0, found)
    assert reasons == ["node0: start dvs-join, it does not run, exit code 1"]


def test_a_stopped_proxy_is_started_anew() -> None:
    found = view(0, "own")
    found["services"]["dvs-proxy-node1"]["state"] = "T"
    commands, reasons = up(0, found)
    assert reasons == ["node0: restart dvs-proxy-node1, its process is stopped"]
    assert order_of(commands[0], "up")["restart"] == ["dvs-proxy-node1"]


def test_stale_endpoints_are_unbound_and_living_ones_are_not() -> None:
    procs = (
        " 0  20    20   812/812    0    8   20 31438 27342 27342 27342 m3ftpd\n"
        " 0  22    22   742/742    0    8   20 31438 27342 27342 27342 busy\n"
        " 0  21    21    -1/-1     1 1000    0 27342 27342 27342 27342 m3ftp_client\n"
    )
    commands, reasons = up(0, view(0, "own", files={"DC0/procs": procs}))
    assert reasons == ["node0: unbind endpoint 20 (m3ftpd) of DC0, its process 812 is gone"]
    unbind = order_of(commands[0], "up")["unbind"]
    assert [row[:2] for row in unbind] == [[0, 20]]
    assert "./test_unbind 0 20" in unbind[0][2]


def test_a_peer_that_left_takes_its_service_with_it() -> None:
    found = view(0, "own")
    found["hashes"][f"{SIDES[0]['folder']}/dvs-proxy-node7/run"] = "0" * 64
    commands, reasons = up(0, found)
    assert reasons == ["node0: end dvs-proxy-node7, it is no longer wanted"]
    assert order_of(commands[0], "up")["gone"] == ["dvs-proxy-node7"]


def test_a_guest_that_does_not_answer_fails_with_its_words() -> None:
    dead = {"answers": False, "error": "Connection refused"}
    commands, _ = up(1, dead)
    assert commands == ["node1: its DVS cannot be read: Connection refused"]


def test_a_plan_for_a_node_that_is_not_there_yet_is_a_change() -> None:
    commands, reasons = up(1, {"answers": False, "error": ""}, stage=StateStage.Prepare)
    assert reasons == ["node1: bring its DVS up"] and len(commands) == 1


def test_without_a_dvs_nothing_is_asked() -> None:
    assert commands_of(dvsup.up, 0, data={"dvs": None}) == []
    assert commands_of(dvsup.joined, 1, on=NODE, data={"dvs": None}) == []


def joined(host: dict[str, Any], guest: dict[str, Any]) -> tuple[list[str], list[str]]:
    reasons: list[tuple[str, str]] = []
    answer = json.dumps({"node0": host, "node1": guest})
    commands = commands_of(
        dvsup.joined, 1, on=NODE, data=DATA, responses={"dvsup look": answer}, reasons=reasons
    )
    return commands, [text for _, text in reasons]


def test_a_pair_is_joined_only_when_both_sides_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvsup, "SETTLE", 0.0)
    assert joined(view(0, "own"), view(1, "runit")) == ([], [])
    lying = view(0, "own", files={"proxies/info": f"  1     3   742   743   node1 {MAP}\n"})
    commands, reasons = joined(lying, view(1, "runit"))
    assert reasons == [
        "node0 ↔ node1: join them, node0 says its proxy has its sender connected, "
        "its receiver is not"
    ]
    order = order_of(commands[0], "join")
    assert order["pairs"] == [["node1", 0, "node0", [0]], ["node0", 1, "node1", [0]]]
    assert (order["deadline"], order["again"], order["remedy"]) == (60, True, "")


def test_a_pair_that_connects_again_by_itself_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tap that was off the bridge for a while: the proxies had just seen it when the run came."""
    lying = view(0, "own", files={"proxies/info": f"  1     3   742   743   node1 {MAP}\n"})
    looks = [{"node0": lying, "node1": view(1, "runit")}] * 3
    looks.append({"node0": view(0, "own"), "node1": view(1, "runit")})
    monkeypatch.setattr(dvsup, "views_of", lambda *_, **__: looks.pop(0))
    reasons: list[tuple[str, str]] = []
    assert commands_of(dvsup.joined, 1, on=NODE, data=DATA, reasons=reasons) == []
    assert (reasons, looks) == ([], [])


def test_a_peer_that_is_down_is_not_waited_for() -> None:
    assert joined({"answers": False, "error": "x"}, view(1, "runit")) == ([], [])


def down(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    reasons: list[tuple[str, str]] = []
    commands = commands_of(
        dvsup.down,
        data=DATA,
        responses={"dvsup look": json.dumps({"node0": found})},
        reasons=reasons,
    )
    return commands, [text for _, text in reasons]


def test_down_ends_what_is_up_and_nothing_the_second_time() -> None:
    commands, reasons = down(view(0, "own"))
    assert reasons == [
        "node0: end dvs-proxy-node1",
        "node0: end dvs-join",
        "node0: end DC0 (init 10)",
        "node0: end the DVS, /var/lib/umlaan/umlaan/run/dvs",
        "node0: remove 3 scripts and units of the DVS",
    ]
    assert order_of(commands[0], "down")["kind"] == "own"
    gone = view(0, "own", hashes={}, services={}, dcs={"0": {"pid": None, "fault": "missing"}})
    gone["files"] = {}
    assert down(gone) == ([], [])


# Proxies that cannot be ended: the real DVS's.
STUCK = {**DATA, "dvs": {**SAMPLE, "programs": {**SAMPLE["programs"], "proxy_restart": "node"}}}


def test_a_proxy_that_cannot_be_ended_takes_its_machine_and_that_is_said() -> None:
    side = dvssides.sides(build_lab([HostData(LAB, False, STUCK), *ROWS[1:]]))[0]
    found = view(0, "own")
    path = f"{side['folder']}/dvs-proxy-node1/run"
    found["hashes"][path] = "0" * 64
    (write, said), _ = up(0, found, data=STUCK)
    # Else what starts after the reboot is the old script again.
    assert list(order_of(write, "write")["files"]) == [path]
    assert said == (
        "node0: dvs-proxy-node1 can only be ended with the machine "
        f"(dvs.programs.proxy_restart is node): {dvsup.REBOOT}"
    )


@pytest.mark.parametrize(
    ("kind", "end"),
    # A run reboots for a lost pair only where all start anew for it.
    [("node", "reboot it, then run again"), ("lab", dvsup.REBOOT)],
)
def test_a_pair_whose_proxies_cannot_be_started_anew_is_given_its_remedy(
    kind: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {**SAMPLE["programs"], "proxy_restart": kind}
    hung = view(0, "own", files={"proxies/info": f"  1     3   742   743   node1 {MAP}\n"})
    views = {"node0": hung, "node1": view(1, "runit")}
    data = {**DATA, "dvs": {**SAMPLE, "programs": programs}}
    (command,) = commands_of(
        dvsup.joined, 1, on=NODE, data=data, responses={"dvsup look": json.dumps(views)}
    )
    order = {**order_of(command, "join"), "deadline": 0}
    assert order["again"] is False
    monkeypatch.setattr(agent.dvslook, "looks", lambda sides: views)
    with pytest.raises(dvsservices.NotUp) as told:
        agent.join(order)
    assert "node0 says its proxy has its sender connected" in str(told.value)
    assert str(told.value).endswith(f"those of node0 end with the machine; {end}")


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("node", "start all nodes anew together, umlaan down and then umlaan up"),
        ("lab", "a run without --limit starts all nodes anew together"),
    ],
)
def test_between_nodes_alone_no_machine_has_to_be_booted(kind: str, end: str) -> None:
    programs = {**SAMPLE["programs"], "proxy_restart": kind}
    data = {"host_dvk": False, "dvs": {**SAMPLE, "programs": programs}}
    hung = view(1, "runit", files={"proxies/info": f"  2     3   742   743   node2 {MAP}\n"})
    (command,) = commands_of(
        dvsup.joined,
        2,
        on="@uml/node2",
        nodes=[NODE, "@uml/node2"],
        data=data,
        responses={"dvsup look": json.dumps({"node1": hung, "node2": view(1, "runit")})},
    )
    assert order_of(command, "join")["remedy"].endswith(end)


def test_where_a_peer_left_a_proxy_that_cannot_be_ended_goes_with_its_node() -> None:
    found = view(1, "runit")
    found["hashes"]["/etc/umlaan/dvs/dvs-proxy-node7/run"] = "0" * 64
    commands, reasons = up(1, found, data=STUCK)
    assert reasons == [
        "node1: end dvs-proxy-node7, it is no longer wanted",
        "node1: restart the node, dvs-proxy-node7 cannot be ended by itself",
    ]
    assert [word.split()[1] for word in commands] == [
        "dvsup",
        "node-stop",
        "node-start",
        "node-wait",
        "dvsup",
    ]
    assert order_of(commands[0], "write")["gone"] == ["dvs-proxy-node7"]
    # What the node starts with no longer has it: nothing is left to be ended.
    assert order_of(commands[-1], "up")["gone"] == []


def test_a_dc_that_was_made_otherwise_is_made_again() -> None:
    made = SIDES[0]["dcs"][0]["made"]
    same = {"0": {"pid": 10, "fault": None, "made": made}}
    assert up(0, view(0, "own", dcs=same)) == ([], [])
    # One of an older umlaan's: nobody knows how.
    assert up(0, view(0, "own", dcs={"0": {**same["0"], "made": None}})) == ([], [])
    commands, reasons = up(0, view(0, "own", dcs={"0": {**same["0"], "made": "./dc_init old"}}))
    assert reasons == [f"node0: make DC0 again, it was by: ./dc_init old; wanted: {made}"]
    assert order_of(commands[0], "up")["reinit"] is True


def test_a_dvs_that_was_initialised_with_other_flags_is_initialised_again() -> None:
    init = SIDES[1]["init"]
    assert up(1, view(1, "runit", init=init)) == ([], [])
    assert up(1, view(1, "runit", init=None)) == ([], [])
    commands, reasons = up(1, view(1, "runit", init=f"{init} -L 65536"))
    assert reasons == [
        f"node1: initialise the DVS again, it was by: {init} -L 65536; wanted: {init}"
    ]
    assert order_of(commands[0], "up")["reinit"] is True


# The lab's host ran the DVS as node0, and no longer does.
ALONE = {**DATA, "host_dvk": False}
UP_IN_DC = {
    "node1": {"running": True, "record": {"dc": {"pid": 10}}},
    "node2": {"running": True, "record": {"dc": None}},
    "node3": {"running": False, "record": None},
}


def left(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    reasons: list[tuple[str, str]] = []
    commands = commands_of(
        dvsup.left,
        data=ALONE,
        responses={
            "dvsup look": json.dumps({"node0": found}),
            "node-state": json.dumps(UP_IN_DC),
        },
        reasons=reasons,
    )
    return commands, [text for _, text in reasons]


def test_a_host_that_leaves_the_dvs_is_left_clean_and_its_nodes_are_stopped_first() -> None:
    commands, reasons = left(view(0, "own"))
    assert "node0: end dvs-proxy-node1" in reasons and "node0: end DC0 (init 10)" in reasons
    assert reasons[-1] == "node1: stop, the DC that it runs in ends"
    assert [word.split()[1] for word in commands] == ["node-stop", "dvsup"]
    side = order_of(commands[-1], "down")["side"]
    assert (side["number"], side["place"], side["folder"]) == (0, "host", SIDES[0]["folder"])


def test_a_dvs_that_is_not_this_labs_is_not_touched() -> None:
    assert left(view(0, "own", hashes={})) == ([], [])
    assert commands_of(dvsup.left, data=DATA) == []
