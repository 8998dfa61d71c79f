"""One fault, one victim: what an operation, its command or its fact raises fails its own host."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.config import Config
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import State, StateStage
from pyinfra.context import host as context_host

from tests.operations.support import LAB
from umlaan.facts.access import MissingKeys
from umlaan.operations.common import LabCommand, agent_fact, on_lab_host, reasons_of, why
from umlaan.operations.operation import operation

REPOSITORY = Path(__file__).resolve().parents[2]
OTHER = "@fake/lab2"
ONE, TWO, THREE = "@uml/node1", "@uml/node2", "@uml/node3"


def state_of(responses: dict[Any, Any] | None = None) -> State:
    """Two lab hosts; node1 and node2 on the first, node3 on the second."""
    fake = {"fake_responses": responses or {}, "fake_delay": 0.0, "fake_delay_jitter": 0.0}
    nodes = [(name, {"lab_host": LAB}) for name in (ONE, TWO)]
    second = fake | {"network": {"address": "192.168.1.11/24"}}
    rows = [(LAB, fake), (OTHER, second), *nodes, (THREE, {"lab_host": OTHER})]
    state = State(Inventory((rows, {"dvs": None})), Config())
    state.current_stage = StateStage.Prepare
    state.check_for_changes = False
    for host in state.inventory:
        if host.name != OTHER:
            host.connect()
        state.activate_host(host)
    return state


def run(state: State, work: Any, **arguments: Any) -> tuple[set[str], set[str]]:
    """(hosts that failed, hosts that did something) in a run of one operation on every host."""
    metas = add_op(state, work, name="A step", **arguments)
    state.set_stage(StateStage.Execute)
    run_ops(state)
    failed = {host.name for host in state.failed_hosts}
    done = {h.name for h, meta in metas.items() if meta.is_complete() and meta.did_change()}
    return failed, done


class Broken(LabCommand):
    """A command of which a connection, or whoever else, raises what pyinfra does not catch."""

    def __init__(self, error: Exception) -> None:
        super().__init__("umlaan-agent", "node-start", "x" * 400)
        self.log, self.error = "/var/log/step.log", error

    def where(self, host: Any) -> Any:
        raise self.error


def _broken() -> None:
    raise RuntimeError("callback")


@operation()
def breaks(how: str) -> Iterator[Any]:
    """Fails on node1 alone, in one of many ways."""
    if context_host.name == ONE:
        if how == "generator":
            raise KeyError("generator")
        if how == "callback":
            yield FunctionCommand(_broken, (), {})
        errors: list[type[Exception]] = [ConnectError, AttributeError, OSError, EOFError]
        for kind in errors:
            if how == kind.__name__:
                yield Broken(kind(how))
    yield on_lab_host("true")


WAYS = ["generator", "callback", "ConnectError", "AttributeError", "OSError", "EOFError"]


@pytest.mark.parametrize("how", WAYS)
def test_whatever_an_operation_raises_fails_its_host_in_one_message(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of()
    with caplog.at_level(logging.INFO, "pyinfra"):
        failed, done = run(state, breaks, how=how)
    assert failed == {ONE}
    assert done == {LAB, OTHER, TWO, THREE}
    said = [row.getMessage() for row in caplog.records if row.levelno >= logging.WARNING]
    assert not [line for line in said if "Traceback" in line]
    assert len([line for line in said if "A step: " in line]) == 1, said
    (reason,) = [text for _, text in reasons_of(state)]
    first, *more = reason.splitlines()
    assert first.startswith("A step: ") and how in first
    if how not in ("generator", "callback"):
        command, log = more
        assert command.startswith("  command: umlaan-agent node-start xxx") and len(command) < 250
        assert log == "  log: /var/log/step.log"


@operation()
def asks() -> Iterator[Any]:
    """Asks the lab host a fact about the node."""
    agent_fact(MissingKeys, context_host.name)
    yield on_lab_host("true")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"success": False, "stderr": "Traceback\nValueError: a guest's"}, "ValueError: a guest's"),
        ("no JSON", "not JSON: no JSON"),
    ],
)
def test_a_fact_about_one_node_fails_that_node_and_not_its_lab_host(answer: Any, said: str) -> None:
    state = state_of({f"keys state {ONE}": answer, "keys state": "[]"})
    failed, done = run(state, asks)
    assert (failed, done) == ({ONE}, {LAB, OTHER, TWO, THREE})
    ((name, reason),) = reasons_of(state)
    assert name == ONE and said in reason and reason.startswith("A step: ")


def test_a_lab_host_that_is_not_there_fails_its_own_nodes_and_is_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, tried = state_of(), []
    lost = state.inventory.get_host(OTHER)

    def connect() -> None:
        tried.append(1)
        raise ConnectError("Could not connect (No route to host)")

    monkeypatch.setattr(lost.connector, "connect", connect)
    failed, done = run(state, asks)
    assert failed == {OTHER, THREE}
    assert done == {LAB, ONE, TWO}
    text = f"A step: lab host {OTHER} cannot be reached: Could not connect (No route to host)"
    assert {reason for _, reason in reasons_of(state)} == {text}
    assert tried == [1]


@operation()
def two_steps(how: str) -> Iterator[Any]:
    """Says why twice, the second time after a command."""
    why("first")
    yield on_lab_host("true")
    if how == "raises" and context_host.name == ONE:
        raise KeyError("x")
    why("second")
    yield StringCommand("true")


def planned(work: Any, **arguments: Any) -> State:
    state = state_of()
    state.check_for_changes = True
    add_op(state, work, name="A step", **arguments)
    return state


def test_a_plan_says_what_comes_after_the_first_command() -> None:
    state = planned(two_steps, how="")
    assert [text for name, text in reasons_of(state) if name == ONE] == ["first", "second"]
    assert not state.failed_hosts
    assert all(meta.ops_change == 1 for meta in state.meta.values())


def test_what_a_plan_raises_fails_its_host_and_the_others_are_planned() -> None:
    state = planned(two_steps, how="raises")
    assert {host.name for host in state.failed_hosts} == {ONE}
    assert [text for name, text in reasons_of(state) if name == TWO] == ["first", "second"]
    (_, fault) = [text for name, text in reasons_of(state) if name == ONE]
    assert fault.startswith("A step: KeyError: 'x' (")


def test_every_operation_of_umlaan_is_one_of_these() -> None:
    """A decorator of pyinfra's own would bring back what is shown above."""
    found = []
    files = [*REPOSITORY.glob("umlaan/**/*.py"), *REPOSITORY.glob("tasks/*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "pyinfra.api.operation":
                names: list[str] = [one.name for one in node.names]
                if "operation" in names and path.name != "operation.py":
                    found.append(str(path))
            called: Callable[..., Any] | Any = getattr(node, "func", None)
            if isinstance(called, ast.Attribute) and called.attr == "get_fact":
                found.append(f"{path}:{node.lineno}")
    assert [path for path in found if "/cli/" not in path] == []
