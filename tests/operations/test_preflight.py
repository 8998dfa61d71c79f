"""The preflight operation: no change on a whole machine, one message with every lack."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from tests.operations.support import LAB, commands_of
from tests.unit.test_preflight import machine
from umlaan.operations import preflight


def run(found: dict[str, Any], stage: StateStage = StateStage.Execute) -> list[str]:
    def call() -> Any:
        from umlaan.operations.common import lab

        return preflight.machine._inner(lab().host(LAB))

    return commands_of(call, on=LAB, responses={" probe ": json.dumps(found)}, stage=stage)


def test_a_whole_machine_is_no_change() -> None:
    assert run(machine()) == []


@pytest.mark.parametrize("stage", [StateStage.Prepare, StateStage.Execute])
def test_all_lacks_in_one_failure(stage: StateStage) -> None:
    (message,) = run(machine(uid=0, tun="No such file or directory", ext4=False), stage)
    head, *lacks = message.splitlines()
    assert head == "preflight: node0 (@fake/lab) lacks what the lab needs; nothing was changed"
    assert [line.split(":")[0] for line in lacks] == ["  /dev/net/tun", "  ext4"]


def test_a_machine_without_python_says_so() -> None:
    (message,) = run({"python": None})
    assert "python3: there is none; install it" in message
