"""deploy.py's stages in the order in which pyinfra runs them, over all hosts."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyinfra
import pytest
from pyinfra.api.config import Config
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import operation
from pyinfra.api.state import State, StateStage

from tests.operations.support import LAB, NODE, current

DEPLOY = Path(__file__).parents[2] / "deploy.py"


@operation()
def _nothing() -> Any:
    yield from ()


class Stages(ModuleType):
    """Any stage of any file of tasks/: one operation of its name, which does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda: _nothing(name=f"{self.__name__}.{name}")


class Tasks(ModuleType):
    """The folder tasks/."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Stages(name)


def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(sys.modules, "tasks", Tasks("tasks"))
    monkeypatch.setattr("umlaan.run.begin", lambda: None)
    monkeypatch.setattr(pyinfra, "is_cli", True)
    state = State(Inventory(([(LAB, {}), (NODE, {"lab_host": LAB})], {})), Config())
    state.current_stage, state.check_for_changes = StateStage.Prepare, False
    state.current_deploy_filename = str(DEPLOY)
    code = compile(DEPLOY.read_text(), str(DEPLOY), "exec")
    for host in state.inventory:
        host.init(state)
        with current(state, host):
            exec(code, {"__name__": "builtins"})
    return [next(iter(state.op_meta[each].names)) for each in state.get_op_order()]


def test_a_machine_is_rebooted_between_all_that_its_nodes_change_and_their_launch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = order(monkeypatch)
    machine = names.index("launch.machine_anew")
    for before in ("root.install", "launch.revive", "guest.identity", "guest.modules"):
        assert names.index(before) < machine, names
    assert machine < names.index("launch.launch")
