"""Launch and stop: what the machine says -> exact commands, and nothing where nothing differs."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from tests.operations.support import LAB, NODE, commands_of
from tests.unit.test_plan_node import SHA
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.operations import node as operations
from umlaan.plan import node as plan

DATA = {"dvs": None, "lab_host": LAB}


def lab_of(**data: Any) -> Lab:
    return build_lab([HostData(LAB, False, data), HostData(NODE, True, {**data, "lab_host": LAB})])


USER = "umlaan-umlaan"
LAB_MODEL = lab_of(dvs=None)
ONE = LAB_MODEL.node("node1")


def row_of(**changed: Any) -> dict[str, Any]:
    record = {
        "argv": plan.command_line(ONE, "tuntap"),
        "kernel_sha256": SHA,
        "namespace": "umlaan",
        "user": USER,
        "dc": None,
        "exit": None,
        "pid": 4711,
        "started_at": 1.0,
    }
    row: dict[str, Any] = {
        "record": record,
        "running": True,
        "pid": 4711,
        "uptime": 500.0,
        "answers": True,
        "leftovers": [],
        "shared": False,
        "root_exists": True,
        "root_id": None,
        "root_user": None,
        "kernel": {"sha256": SHA, "transports": ["tuntap", "vector"], "release": "6.1"},
        "dc": None,
    }
    return {**row, **changed}


def run(
    operation: Any, row: dict[str, Any] | None, waited: bool = True, **keywords: Any
) -> tuple[list[str], list[str]]:
    """(verbs and failures yielded, reasons said)."""
    said: list[tuple[str, str]] = []
    state = "null" if row is None else json.dumps({"node1": row})
    responses = {"node-state": state, "node-wait": {"success": waited}}
    commands = commands_of(
        operation, ONE, on=NODE, responses=responses, data=DATA, reasons=said, **keywords
    )
    return commands, [text for _, text in said]


def verbs(commands: list[str]) -> list[str]:
    return [shlex.split(command)[1] for command in commands]


def order_of(command: str) -> dict[str, Any]:
    words = shlex.split(command)
    assert words[0] == "umlaan-agent"
    order: dict[str, Any] = json.loads(words[2])
    return order


def test_a_node_as_declared_is_left_alone() -> None:
    assert run(operations.running, row_of()) == ([], [])


def test_a_killed_node_is_started_and_awaited() -> None:
    row = row_of(running=False)
    row["record"]["exit"] = {"code": -9}
    commands, reasons = run(operations.running, row)
    assert verbs(commands) == ["node-start", "node-wait"]
    assert reasons == ["node1: start, it is down (killed by signal 9)"]
    assert order_of(commands[0]) == {
        "name": "node1",
        "dir": "/var/lib/umlaan/umlaan/nodes/node1",
        "umid": "node1",
        "root": "/var/lib/umlaan/umlaan/nodes/node1/root.ext4",
        "address": "192.168.1.101",
        "namespace": "umlaan",
        "kernel_dir": ONE.kernel_dir,
        "dc_file": None,
        "argv": plan.command_line(ONE, "tuntap"),
        "kernel_sha256": SHA,
        "tmpdir": None,
        "mem": 1 << 30,
        "deadline": 90,
        "lab": "umlaan",
        "user": USER,
        "hostfs": None,
        "hostfs_writable": False,
    }


def test_a_node_noted_as_it_runs_is_left_alone() -> None:
    noted = json.loads(plan.as_json(plan.wanted_launch(LAB_MODEL, ONE, row_of()).order()))
    assert run(operations.running, row_of(noted=noted)) == ([], [])


@pytest.mark.parametrize("noted", [None, {"name": "node1", "argv": ["old"]}])
def test_a_node_that_a_boot_would_leave_down_or_start_otherwise_is_noted(noted: Any) -> None:
    commands, reasons = run(operations.running, row_of(noted=noted))
    assert [shlex.split(command)[1:3] for command in commands] == [["at-boot", "note"]]
    order = json.loads(shlex.split(commands[0])[3])
    assert order["argv"] == plan.command_line(ONE, "tuntap")
    assert reasons == ["node1: note how it is started when the lab host boots"]


def test_a_node_that_differs_is_stopped_first() -> None:
    row = row_of()
    row["record"]["argv"] = [w.replace("1024M", "512M") for w in row["record"]["argv"]]
    commands, reasons = run(operations.running, row)
    assert verbs(commands) == ["node-stop", "node-start", "node-wait"]
    assert reasons == ["node1: restart, mem 512M → 1024M"]
    assert order_of(commands[0])["deadline"] is None


def test_a_node_that_runs_as_another_user_is_started_anew() -> None:
    """So it is for one that an older version launched, which knew no other than root."""
    row = row_of()
    row["record"].pop("user")
    commands, reasons = run(operations.running, row)
    assert verbs(commands) == ["node-stop", "node-start", "node-wait"]
    assert reasons == [f"node1: restart, user root → {USER}"]


@pytest.mark.parametrize("stage", [StateStage.Prepare, StateStage.Execute])
def test_a_node_that_the_data_has_run_as_root_is_said_each_time(
    stage: StateStage, caplog: pytest.LogCaptureFixture
) -> None:
    row = row_of()
    row["record"]["user"] = "root"
    node = lab_of(dvs=None, node={"user": "root"}).node("node1")
    commands = commands_of(
        operations.running,
        node,
        on=NODE,
        responses={"node-state": json.dumps({"node1": row})},
        data={**DATA, "node": {"user": "root"}},
        stage=stage,
    )
    assert commands == []
    assert "node1: runs as root on its lab host (node.user)" in caplog.text


def test_the_plan_knows_a_node_that_nothing_made_yet() -> None:
    row = row_of(running=False, record=None, kernel=None, root_exists=False)
    commands, reasons = run(operations.running, row, stage=StateStage.Prepare)
    assert verbs(commands) == ["node-start", "node-wait"]
    assert reasons == ["node1: start, it was never launched"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kernel": None}, "no kernel in"),
        ({"root_exists": False}, "no root at /var/lib/umlaan/umlaan/nodes/node1/root.ext4"),
    ],
)
def test_what_an_earlier_stage_did_not_make_fails(changed: Any, message: str) -> None:
    commands, reasons = run(operations.running, row_of(running=False, record=None, **changed))
    assert len(commands) == 1
    assert message in commands[0]
    assert message in reasons[-1]


def test_a_transport_that_is_not_there_fails() -> None:
    row = row_of(running=False, kernel={"sha256": SHA, "transports": ["vector"]})
    node = lab_of(dvs=None, node={"transport": "tuntap"}).node("node1")
    commands = commands_of(
        operations.running,
        node,
        on=NODE,
        responses={"node-state": json.dumps({"node1": row})},
        data=DATA,
    )
    assert commands == ["node.transport: tuntap is not in node1's kernel; it has vector"]


@pytest.mark.parametrize("state", ["null", json.dumps({"node1": row_of(running=False)})])
def test_what_cannot_be_launched_fails_also_where_the_lab_host_says_nothing(
    state: str,
) -> None:
    kernel = {"source": "ready:/x", "transports": ["vector"]}
    node = lab_of(dvs=None, kernel=kernel, node={"transport": "tuntap"}).node("node1")
    (command,) = commands_of(
        operations.running,
        node,
        on=NODE,
        responses={"node-state": state},
        data=DATA,
        stage=StateStage.Prepare,
    )
    assert command == "node.transport: tuntap is not in node1's kernel; it has vector"


def test_a_booting_node_is_awaited_and_that_is_no_change() -> None:
    assert run(operations.running, row_of(answers=False, uptime=3.0)) == ([], [])


def test_a_hung_node_is_started_anew() -> None:
    commands, reasons = run(operations.running, row_of(answers=False), waited=False)
    assert verbs(commands) == ["node-stop", "node-start", "node-wait"]
    assert reasons == [
        "node1: restart, it is up for 500 s and ssh on 192.168.1.101 does not answer"
    ]
    assert order_of(commands[0])["deadline"] == operations.GRACE_S


def test_a_node_that_the_network_s_repair_cured_is_left_alone() -> None:
    assert run(operations.running, row_of(answers=False), waited=True) == ([], [])


def test_a_lab_host_that_does_not_answer_changes_nothing_at_execute() -> None:
    assert run(operations.running, None) == ([], [])


def test_a_node_that_answers_is_not_revived() -> None:
    assert run(operations.answering, row_of()) == ([], [])
    assert run(operations.answering, row_of(running=False)) == ([], [])
    assert run(operations.answering, row_of(answers=False, uptime=3.0)) == ([], [])


def test_a_hung_node_is_stopped_before_anyone_looks_inside() -> None:
    commands, reasons = run(operations.answering, row_of(answers=False), waited=False)
    assert verbs(commands) == ["node-stop"]
    assert "is up for 500 s and ssh on 192.168.1.101 does not answer" in reasons[0]


def test_a_stopped_node_is_left_alone() -> None:
    assert run(operations.stopped, row_of(running=False)) == ([], [])
    assert run(operations.stopped, row_of(running=False, noted=None)) == ([], [])


def test_a_node_that_ended_by_itself_is_kept_from_the_next_boot() -> None:
    commands, reasons = run(operations.stopped, row_of(running=False, noted={"name": "node1"}))
    assert verbs(commands) == ["node-stop"] and order_of(commands[0])["forget"] is True
    assert reasons == ["node1: leave it down when the lab host boots"]


def test_stopping_a_node_that_is_up() -> None:
    commands, reasons = run(operations.stopped, row_of())
    assert verbs(commands) == ["node-stop"]
    assert reasons == ["node1: stop, it is up (pid 4711)"]


def test_a_connection_to_a_dead_node_is_ended() -> None:
    commands, reasons = run(operations.stopped, row_of(running=False, shared=True))
    assert verbs(commands) == ["node-stop"]
    assert reasons == ["node1: end the ssh connection to it, it is down"]


def test_what_a_dead_node_left_behind_is_ended() -> None:
    commands, reasons = run(operations.stopped, row_of(running=False, leftovers=[5, 6]))
    assert verbs(commands) == ["node-stop"]
    assert reasons == ["node1: end 2 processes that its last run left behind"]
