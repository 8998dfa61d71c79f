"""@uml/nodeN on a @fake lab host: which way a command takes in each state of the node."""

from __future__ import annotations

import io
import json
import shlex
from typing import Any

import pytest
from pyinfra.api.command import StringCommand
from pyinfra.api.config import Config
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State, StateStage

from tests.operations.support import LAB, NODE
from umlaan.agent.chroot import MARK
from umlaan.agent.sandbox import MISSING

UP = {"running": True, "answers": True, "uptime": 500.0, "root_exists": True}
DOWN = {"running": False, "answers": None, "uptime": None, "root_exists": True}
NONE = {**DOWN, "root_exists": False}
SILENT = {**UP, "answers": False}


def node_host(
    row: dict[str, Any],
    stage: StateStage = StateStage.Execute,
    data: dict[str, Any] | None = None,
    **responses: Any,
) -> tuple[Host, list[str]]:
    """(the @uml host, the commands that reach its lab host)."""
    answers = {"node-state": json.dumps({"node1": row}), **responses}
    fake = {"fake_responses": answers, "fake_delay": 0.0, "fake_delay_jitter": 0.0}
    inventory = Inventory(([(LAB, fake), (NODE, {"lab_host": LAB, **(data or {})})], {}))
    state = State(inventory, Config())
    state.current_stage = stage
    for host in inventory:
        host.init(state)
    node = inventory.get_host(NODE)
    node.connect()
    return node, inventory.get_host(LAB).connector.executed_commands


def inner(command: str) -> list[str]:
    """The words that are listened to: behind the limits."""
    words = shlex.split(command)
    assert words[:2] == ["perl", "-e"] and words[3] == "node1"
    return words[words.index("env") + 1 :]


def limits_of(command: str) -> list[str]:
    """Bytes, lines and seconds that it may take."""
    return shlex.split(command)[4:7]


def test_connecting_asks_nothing() -> None:
    node, ran = node_host(DOWN)
    assert node.connected
    assert ran == []


def test_a_stopped_node_is_entered_through_its_root() -> None:
    node, ran = node_host(DOWN, **{"root-run": "node1"})
    status, output = node.run_shell_command(StringCommand("cat", "/etc/hostname"))
    assert (status, output.stdout) == (True, "node1")
    assert inner(ran[-1]) == [
        "umlaan-agent",
        "root-run",
        "--root",
        "/var/lib/umlaan/umlaan/nodes/node1/root.ext4",
        "--dir",
        "/var/lib/umlaan/umlaan/nodes/node1",
        "--",
        "sh",
        "-c",
        "sh -c 'cat /etc/hostname'",
    ]


def test_a_stopped_root_has_a_way_out_only_to_fetch_packages() -> None:
    node, ran = node_host(DOWN)
    for command, lent in (
        ("apt-get -y install tree", True),
        ("apt update", True),
        ("dpkg -l", False),
        ("curl http://192.0.2.1/", False),
    ):
        node.run_shell_command(StringCommand(command))
        assert ("--network" in shlex.split(ran[-1])) is lent, command


def test_before_bubblewrap_is_installed_a_plan_sees_an_empty_machine() -> None:
    refusal = {"success": False, "stderr": f"{MARK}{MISSING}"}
    node, _ = node_host(DOWN, StateStage.Prepare, **{"root-run": refusal})
    status, output = node.run_shell_command(StringCommand("cat", "/etc/hostname"))
    assert (status, output.stdout) == (True, "")
    node, _ = node_host(DOWN, **{"root-run": refusal})
    status, output = node.run_shell_command(StringCommand("cat", "/etc/hostname"))
    assert (status, output.stderr) == (False, f"node1: {MISSING}")


def test_a_plan_only_reads() -> None:
    node, ran = node_host(DOWN, StateStage.Prepare)
    node.run_shell_command(StringCommand("true"))
    assert "--read-only" in shlex.split(ran[-1])


def test_a_node_that_is_up_is_entered_through_the_guest() -> None:
    node, ran = node_host(UP)
    node.run_shell_command(StringCommand("cat", "/etc/hostname"))
    words = inner(ran[-1])
    assert words[:4] == ["ip", "netns", "exec", "umlaan"]
    assert "ControlMaster=auto" in words
    assert words[-2:] == ["root@192.168.1.101", "sh -c 'cat /etc/hostname'"]


def test_the_state_is_asked_once() -> None:
    node, ran = node_host(UP)
    for _ in range(3):
        node.run_shell_command(StringCommand("true"))
    assert sum("node-state" in command for command in ran) == 1
    node.connector.forget()
    node.run_shell_command(StringCommand("true"))
    assert sum("node-state" in command for command in ran) == 2


def test_before_it_exists_a_plan_sees_an_empty_machine() -> None:
    node, ran = node_host(NONE, StateStage.Prepare)
    status, output = node.run_shell_command(StringCommand("cat", "/etc/hostname"))
    assert (status, output.stdout) == (True, "")
    assert node.put_file(io.StringIO("x"), "/etc/x")
    assert not [command for command in ran if "node-state" not in command]


def test_at_execute_what_does_not_exist_is_told() -> None:
    node, _ = node_host(NONE)
    status, output = node.run_shell_command(StringCommand("true"))
    assert not status
    assert "node1 does not exist yet: there is no root at" in output.stderr


@pytest.mark.parametrize("stage", [StateStage.Prepare, StateStage.Execute])
def test_up_but_silent_is_unknown_and_its_root_is_left_alone(stage: StateStage) -> None:
    failed = {"success": False, "stderr": "node1 is up but ssh does not answer"}
    node, ran = node_host(SILENT, stage, **{"node-wait": failed})
    status, output = node.run_shell_command(StringCommand("true"))
    assert not status
    assert "what it holds is unknown" in output.stderr
    assert "ssh does not answer" in output.stderr
    assert not [command for command in ran if "root-run" in command or "ssh -F" in command]


def test_a_booting_node_gets_its_time() -> None:
    node, ran = node_host({**SILENT, "uptime": 10.0})
    status, _ = node.run_shell_command(StringCommand("true"))
    assert status
    wait = next(command for command in ran if "node-wait" in command)
    assert json.loads(shlex.split(wait)[2])["deadline"] == 80.0
    assert "root@192.168.1.101" in ran[-1]


def test_a_node_that_was_launched_meanwhile_is_looked_at_again() -> None:
    refusal = {"success": False, "stderr": f"{MARK}its node is up"}
    node, ran = node_host(DOWN, **{"root-run": refusal})
    status, output = node.run_shell_command(StringCommand("true"))
    assert sum("node-state" in command for command in ran) == 2
    assert (status, output.stderr) == (False, "node1: its node is up")


def test_a_command_s_own_failure_is_passed_on_and_not_repeated() -> None:
    failure = {"success": False, "stderr": "cat: /nowhere: No such file or directory"}
    for row, key in ((UP, "root@"), (DOWN, "root-run")):
        node, ran = node_host(row, **{key: failure})
        status, output = node.run_shell_command(StringCommand("cat", "/nowhere"))
        assert (status, output.stderr_lines) == (False, [failure["stderr"]])
        assert sum(key in command for command in ran) == 1


def test_a_root_in_use_is_told() -> None:
    refusal = {"success": False, "stderr": f"{MARK}root /x is held by another (pid 7)"}
    node, _ = node_host(DOWN, **{"root-run": refusal})
    status, output = node.run_shell_command(StringCommand("true"))
    assert (status, output.stderr) == (False, "node1: root /x is held by another (pid 7)")


def test_a_file_arrives_through_the_lab_host() -> None:
    for row, way in ((UP, "root@"), (DOWN, "root-run")):
        node, ran = node_host(row, stat="4")
        assert node.put_file(io.BytesIO(b"\0\xff\n\r"), "/etc/it's")
        write = next(command for command in ran if way in command)
        assert "/etc/it" in write
        parcel = write.rsplit("<", 1)[1].strip()
        assert parcel.startswith("/var/lib/umlaan/umlaan/run/parcel-")
        assert ran[-1] == f"rm -f {parcel}"


def test_a_file_that_did_not_arrive_fails_and_leaves_no_parcel() -> None:
    failure = {"success": False, "stderr": "No space left on device"}
    node, ran = node_host(UP, stat="4", **{"root@": failure})
    with pytest.raises(OSError, match="No space left on device"):
        node.put_file(io.BytesIO(b"1234"), "/etc/x")
    assert ran[-1].startswith("rm -f ")


def test_a_file_is_fetched_through_the_lab_host() -> None:
    node, ran = node_host(UP)
    assert node.get_file("/etc/hostname", io.BytesIO())
    fetch = next(command for command in ran if "root@" in command)
    assert fetch.startswith("umask 077;")
    assert "cat /etc/hostname" in fetch
    # As much as half of what is free where it is put.
    assert "df -B1 --output=avail /var/lib/umlaan/umlaan/run" in fetch


@pytest.mark.parametrize("row", [UP, DOWN])
def test_what_a_node_says_has_a_limit_and_a_plan_s_look_a_deadline(row: dict[str, Any]) -> None:
    node, ran = node_host(row, StateStage.Prepare)
    node.run_shell_command(StringCommand("true"))
    assert limits_of(ran[-1]) == [str(32 << 20), "500000", "300"]
    # What a user runs may take its time, unless the user says how much.
    node, ran = node_host(row)
    node.run_shell_command(StringCommand("true"))
    assert limits_of(ran[-1])[2] == "0"
    node.run_shell_command(StringCommand("true"), _timeout=40)
    assert limits_of(ran[-1])[2] == "40"


def test_packages_are_fetched_by_the_lab_host_s_way_out() -> None:
    node, ran = node_host(UP)
    node.run_shell_command(StringCommand("apt-get -y install tree"))
    assert inner(ran[-1])[1:4] == ["outward", "umlaan", "ssh"]
    node.run_shell_command(StringCommand("dpkg -l"))
    assert "outward" not in ran[-1]


def test_mirrors_of_the_data_are_named_to_the_way_out() -> None:
    own: dict[str, Any] = {
        "network": {"mirrors": ["https://packages.example/apt"]},
        "root": {"made": {"mirror": "http://10.9.8.7:3142/debian"}},
    }
    node, ran = node_host(UP, data=own)
    node.run_shell_command(StringCommand("apt-get -y install tree"))
    words = inner(ran[-1])
    assert words[1:3] == ["outward", "umlaan"]
    assert words[3:6] == ["https://packages.example/apt", "http://10.9.8.7:3142/debian", "ssh"]
    node, ran = node_host(DOWN, data=own)
    node.run_shell_command(StringCommand("apt-get -y install tree"))
    words = shlex.split(ran[-1])
    at = words.index("--network")
    assert words[at + 1 : at + 5 : 2] == ["--mirror", "--mirror"]
    assert words[at + 2 : at + 5 : 2] == own["network"]["mirrors"] + [own["root"]["made"]["mirror"]]


def test_a_failed_lab_host_fails_its_nodes() -> None:
    node, _ = node_host(UP)
    node.state.failed_hosts.add(node.inventory.get_host(LAB))
    status, output = node.run_shell_command(StringCommand("true"))
    assert (status, output.stderr) == (False, "lab host @fake/lab failed earlier in this run")
