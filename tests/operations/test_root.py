"""Roots: what the machine says -> exact commands, refusals, and nothing where nothing differs."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from tests.operations.support import LAB, NODE, commands_of
from umlaan.model.lab import HostData, build_lab
from umlaan.operations import root as operations

FS = {"state": "clean", "bytes": 1 << 30, "size": 1 << 30}
THERE = {"kind": "device", "made_from": None, "key": None, "file_system": FS, "writable": True}
DOWN = {"running": False, "root_user": None}
DEVICE = {"root": "/dev/sdb6"}


def run(
    row: dict[str, Any] | None, data: dict[str, Any], life: dict[str, Any] = DOWN, **more: Any
) -> tuple[list[str], list[str]]:
    lab = build_lab([HostData(LAB, False, {}), HostData(NODE, True, {**data, "lab_host": LAB})])
    found = None if row is None else {"bases": {"k": True}, "nodes": {"node1": row}}
    said: list[tuple[str, str]] = []
    commands = commands_of(
        operations.installed,
        lab.node("node1"),
        on=NODE,
        responses={"root state": json.dumps(found), "node-state": json.dumps({"node1": life})},
        data=data,
        reasons=said,
        **more,
    )
    return commands, [text for _, text in said]


def test_a_users_partition_that_is_whole_is_left_alone() -> None:
    assert run({**THERE, "system": True}, DEVICE) == ([], [])


def test_a_made_root_that_is_there_is_left_alone() -> None:
    assert run({**THERE, "kind": "image", "key": "k", "made_from": "k"}, {}) == ([], [])


def test_a_missing_made_root_is_copied() -> None:
    row = {"kind": "missing", "made_from": None, "key": "k"}
    commands, reasons = run(row, {})
    assert shlex.split(commands[0])[1:3] == ["root", "make"]
    assert reasons == ["node1: make its root from the base image"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "missing"}, "is not there; umlaan never makes a device"),
        ({"kind": "other"}, "is neither a partition nor an image"),
        ({"file_system": None, "type": "swap"}, "holds swap, not ext4; is it the right partition?"),
        ({"file_system": None, "type": ""}, "holds no file system, not ext4"),
        ({"writable": False}, "is write-protected"),
        ({"system": False}, "holds no system (no /sbin/init)"),
        ({"file_system": {**FS, "size": 1 << 20}}, "is cut off: its file system spans 1024 MiB"),
    ],
)
def test_what_cannot_be_a_root_is_refused(changed: dict[str, Any], message: str) -> None:
    commands, _ = run({**THERE, **changed}, DEVICE)
    assert len(commands) == 1 and message in commands[0]


def test_a_partition_in_use_is_refused() -> None:
    commands, _ = run(THERE, DEVICE, {"running": False, "root_user": "a mount on /mnt"})
    assert "is in use by a mount on /mnt" in commands[0]


def test_what_the_nodes_own_last_run_left_behind_is_no_stranger() -> None:
    left = {"running": False, "leftovers": [4711], "root_user": "node1 (pid 4711)"}
    unclean = {**THERE, "file_system": {**FS, "state": "errors"}}
    assert run(THERE, DEVICE, left) == ([], [])
    assert run(unclean, DEVICE, left) == ([], [])


def test_the_root_of_a_node_that_is_up_is_left_alone() -> None:
    assert run({**THERE, "writable": False}, DEVICE, {"running": True}) == ([], [])


def test_noted_errors_are_checked_and_a_journal_is_left_to_the_mount() -> None:
    commands, reasons = run({**THERE, "file_system": {**FS, "state": "errors"}}, DEVICE)
    assert shlex.split(commands[0])[1:3] == ["root", "check"]
    assert reasons == ["node1: e2fsck -p /dev/sdb6, its file system has noted errors"]
    assert run({**THERE, "file_system": {**FS, "state": "journal"}}, DEVICE) == ([], [])


def test_a_plan_without_an_answer_says_what_is_to_come() -> None:
    assert run(None, {}, stage=StateStage.Prepare) == ([], ["node1: make its root"])


@pytest.mark.parametrize(("ready", "count"), [(True, 0), (False, 1)])
def test_the_base_image_is_made_only_where_a_node_needs_it(ready: bool, count: int) -> None:
    found = {"bases": {"k": ready}, "nodes": {"node1": {"kind": "missing", "key": "k"}}}
    commands = commands_of(
        operations.base, on=LAB, responses={"root state": json.dumps(found)}, data={}
    )
    assert len(commands) == count
    assert all(" root base " in command for command in commands)
