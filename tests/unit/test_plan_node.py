"""How a node should run, and why it must be started or restarted."""

from __future__ import annotations

from typing import Any

import pytest

from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.model.node import Node
from umlaan.plan import node as plan

SHA = "a" * 64


def lab_of(**data: Any) -> Lab:
    return build_lab([HostData("@local", False, data), HostData("@uml/node1", True, data)])


def node_of(**data: Any) -> Node:
    return lab_of(**data).node("node1")


def row_of(lab: Lab, **changed: Any) -> dict[str, Any]:
    """A node that runs exactly as its lab wants it."""
    node = lab.node("node1")
    record = {
        "argv": plan.command_line(node, "tuntap"),
        "user": lab.host(node.host).user,
        "kernel_sha256": SHA,
        "root_id": [1, 2],
        "namespace": node.network.namespace,
        "dc": None,
        "pid": 4711,
        "started_at": 1.0,
        "exit": None,
    }
    row: dict[str, Any] = {
        "record": record,
        "running": True,
        "uptime": 500.0,
        "answers": True,
        "root_exists": True,
        "root_id": [1, 2],
        "kernel": {"sha256": SHA, "transports": ["tuntap", "vector"]},
        "dc": {"pid": None, "start": None, "fault": "missing"},
    }
    return {**row, **changed}


def reasons(lab: Lab, row: dict[str, Any]) -> list[str]:
    launch = plan.wanted_launch(lab, lab.node("node1"), row)
    return plan.change_of(launch, row).reasons


NO_DC = {"dvs.programs.dc": None}


def test_the_procedure_s_command_line() -> None:
    node = node_of(root="/dev/sdb6")
    argv = plan.command_line(node, "tuntap")
    assert argv[0].endswith("/linux")
    assert argv[1:] == [
        "con0=null,fd:2",
        "con1=fd:0,fd:1",
        "con=null",
        "ssl=null",
        "umid=node1",
        "uml_dir=/var/lib/umlaan/umlaan/nodes/node1/uml/",
        "ubda=/dev/sdb6",
        "root=/dev/ubda",
        "rw",
        "mem=1024M",
        "dcid=0",
        "eth0=tuntap,HTAP,fe:fd:c0:a8:01:65",
    ]


def test_a_command_line_with_all_that_data_can_add() -> None:
    settings = {
        "mem": "512M",
        "disks": ("/srv/b", "/srv/c"),
        "hostfs": "/srv/share",
        "dcid": None,
        "extra_args": ("quiet", "init=/bin/sh"),
    }
    argv = plan.command_line(node_of(node=settings), "vector")
    assert "ubdb=/srv/b" in argv
    assert "ubdc=/srv/c" in argv
    assert "hostfs=/srv/share" in argv
    assert argv[-2:] == ["quiet", "init=/bin/sh"]
    assert "vec0:transport=tap,ifname=HTAP,mac=fe:fd:c0:a8:01:65,depth=128,gro=1" in argv
    assert not [word for word in argv if word.startswith(("dcid", "eth0"))]


@pytest.mark.parametrize(
    ("transport", "known", "expected"),
    [
        ("auto", ["tuntap", "vector"], "tuntap"),
        ("auto", ["vector"], "vector"),
        ("auto", None, "tuntap"),
        ("vector", ["tuntap", "vector"], "vector"),
        ("vector", None, "vector"),
    ],
)
def test_the_transport_is_the_kernel_s(transport: str, known: Any, expected: str) -> None:
    node = node_of(node={"transport": transport})
    assert plan.transport_of(node, {"transports": known}) == expected


def test_a_transport_that_the_kernel_has_not() -> None:
    node = node_of(node={"transport": "tuntap"})
    with pytest.raises(plan.LaunchFault, match="tuntap is not in node1's kernel; it has vector"):
        plan.transport_of(node, {"transports": ["vector"]})


def test_a_node_that_runs_as_wanted_is_left_alone() -> None:
    lab = lab_of(**NO_DC)
    assert reasons(lab, row_of(lab)) == []


def test_the_order_of_words_is_no_difference() -> None:
    lab = lab_of(**NO_DC)
    row = row_of(lab)
    argv = row["record"]["argv"]
    row["record"]["argv"] = [argv[0], *reversed(argv[1:])]
    assert reasons(lab, row) == []


def test_another_place_of_the_same_kernel_is_no_difference() -> None:
    lab = lab_of(**NO_DC)
    row = row_of(lab)
    row["record"]["argv"][0] = "/elsewhere/linux"
    assert reasons(lab, row) == []


@pytest.mark.parametrize(
    ("data", "changed", "expected"),
    [
        ({"node.mem": "512M"}, {}, "node1: restart, mem 1024M → 512M"),
        ({"node.extra_args": ("quiet",)}, {}, "node1: restart, quiet comes"),
        ({"node.dcid": None}, {}, "node1: restart, dcid=0 goes"),
        ({}, {"root_id": [1, 3]}, "was replaced by another one"),
        (
            {},
            {"kernel": {"sha256": "b" * 64}},
            f"node1: restart, kernel {'a' * 12} → {'b' * 12}",
        ),
        ({"network.namespace": None}, {}, "network namespace umlaan → of the host"),
        ({"node.user": "eva"}, {}, "node1: restart, user umlaan-umlaan → eva"),
    ],
)
def test_what_differs_is_the_reason(data: Any, changed: Any, expected: str) -> None:
    row = row_of(lab_of(**NO_DC), **changed)
    found = reasons(lab_of(**NO_DC, **data), row)
    assert len(found) == 1
    assert expected in found[0]


def test_a_shared_folder_that_becomes_writable_is_a_reason() -> None:
    share = {"node.hostfs": "/srv/share"}
    row = row_of(lab_of(**NO_DC, **share))
    assert reasons(lab_of(**NO_DC, **share), row) == []
    found = reasons(lab_of(**NO_DC, **share, **{"node.hostfs_writable": True}), row)
    assert found == ["node1: restart, hostfs read-only → writable"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, "it was never launched"),
        ({"exit": {"code": -9}, "pid": 1}, "it is down (killed by signal 9)"),
        ({"exit": {"code": -6}, "pid": 1}, "it is down (its kernel panicked)"),
        ({"exit": {"code": 134}, "pid": 1}, "it is down (its kernel panicked)"),
        ({"exit": {"code": 0}, "pid": 1}, "it is down (shut down)"),
        ({"exit": {"code": 1}, "pid": 1}, "it is down (exit code 1)"),
        ({"exit": None, "pid": 1, "started_at": 1.0}, "it is down (killed)"),
        ({"exit": None, "pid": None, "started_at": 1.0}, "(the lab host was started anew)"),
    ],
)
def test_how_it_went_down_is_said(record: Any, expected: str) -> None:
    lab = lab_of(**NO_DC)
    found = reasons(lab, row_of(lab, running=False, record=record))
    assert len(found) == 1
    assert found[0].startswith("node1: start, ")
    assert expected in found[0]


def test_a_dc_made_anew_is_a_reason() -> None:
    lab = lab_of()
    row = row_of(lab, dc={"pid": 20, "start": 5, "fault": None})
    row["record"]["dc"] = {"pid": 10, "start": 4}
    assert reasons(lab, row) == ["node1: restart, the DC's init 10 → 20"]
    row["record"]["dc"] = {"pid": 20, "start": 4}
    assert reasons(lab, row) == ["node1: restart, the DC's init 20 → 20"]
    row["record"]["dc"] = {"pid": 20, "start": 5}
    assert reasons(lab, row) == []


def test_a_dc_that_is_to_be_made_is_awaited_not_skipped() -> None:
    lab = lab_of()
    launch = plan.wanted_launch(lab, lab.node("node1"), row_of(lab))
    assert launch.dc_file == "/dev/shm/DC0.sh"
    assert reasons(lab, row_of(lab)) == []


def test_without_a_dc_the_launch_is_plain() -> None:
    for data in (NO_DC, {"dvs": None}, {"node.dcid": None}, {"host_dvk": False}):
        lab = lab_of(**data)
        launch = plan.wanted_launch(lab, lab.node("node1"), row_of(lab))
        assert launch.dc_file is None, data


def test_a_dc_file_of_a_user_s_own_is_used() -> None:
    lab = lab_of(**NO_DC)
    row = row_of(lab, dc={"pid": 20, "start": 5, "fault": None})
    assert reasons(lab, row) == ["node1: restart, the host's PID namespace → that of DC 20"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "up"),
        ({"answers": False, "uptime": 3.0}, "booting"),
        ({"answers": False}, "unreachable"),
        ({"running": False}, "down"),
        ({"running": False, "record": {"exit": {"code": -6}}}, "failed"),
        ({"running": False, "record": None, "root_exists": False}, "absent"),
        ({"running": False, "record": None}, "down"),
    ],
)
def test_one_word_for_what_a_node_is(changed: Any, expected: str) -> None:
    lab = lab_of()
    assert plan.life(lab.node("node1"), row_of(lab, **changed)) == expected


def test_nothing_known_of_a_node() -> None:
    assert plan.life(node_of(), None) == "absent"
