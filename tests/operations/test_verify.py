"""Looks at the end of a run: verification, what stands, nodes that wait for their lab host."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from tests.operations.support import LAB, NODE, commands_of
from umlaan.operations import carried, standing, verify

UP = {
    "running": True,
    "answers": True,
    "uptime": 5.0,
    "root_exists": True,
    "record": {"pid": 7},
    "kernel": {"release": "6.1.0", "transport": "vector"},
}
GOOD = {"what": "ssh", "host": "9 ms", "guest": "answers", "ok": True, "detail": ""}
BAD = {"what": "hostname", "host": "node1", "guest": "other", "ok": False, "detail": "edited"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the run keeps for its last line."""
    kept = SimpleNamespace(nodes={}, tables=[], asked="up")
    monkeypatch.setattr(verify, "current", lambda: kept)
    monkeypatch.setattr(standing, "current", lambda: kept)
    return kept


def verified(row: dict[str, Any], checks: list[dict[str, Any]], **more: Any) -> list[str]:
    answers = {"node-state": json.dumps({"node1": row}), " verify ": json.dumps({"checks": checks})}
    return commands_of(verify.both_sides, on=NODE, responses=answers, data={"dvs": None}, **more)


def test_what_is_as_it_should_be_yields_no_command(run: SimpleNamespace) -> None:
    assert verified(UP, [GOOD]) == []
    assert run.nodes == {"node1": "up"}
    assert "ssh    9 ms" in run.tables[0]


def test_what_is_wrong_fails_with_both_views(run: SimpleNamespace) -> None:
    said: list[tuple[str, str]] = []
    commands = verified(UP, [GOOD, BAD], reasons=said)
    assert commands == ["node1: hostname: host node1, guest other (edited)"]
    assert said == [(NODE, commands[0])]


def test_a_node_that_says_nothing_has_failed(run: SimpleNamespace) -> None:
    assert verified(UP, []) == ["node1: no answer"]


def test_a_node_that_is_down_is_not_asked(run: SimpleNamespace) -> None:
    assert verified({**UP, "running": False, "answers": None}, [GOOD]) == ["node1: is not up"]
    assert run.tables == []


def test_a_plan_asks_nothing_of_the_guest(run: SimpleNamespace) -> None:
    assert verified(UP, [BAD], stage=StateStage.Prepare) == []
    assert (run.nodes, run.tables) == ({"node1": "up"}, [])


def stood(row: dict[str, Any] | None, on: str = LAB) -> list[str]:
    answers = {"node-state": json.dumps({"node1": row} if row else {})}
    return commands_of(standing.noted, on=on, responses=answers)


def test_what_stands_is_noted_and_changes_nothing(run: SimpleNamespace) -> None:
    for on in (LAB, NODE):
        run.nodes.clear()
        assert stood(UP, on) == []
        assert run.nodes == {"node1": "up"}


def test_a_node_that_ended_badly_is_down_where_down_was_asked(run: SimpleNamespace) -> None:
    killed = {**UP, "running": False, "answers": None, "record": {"exit": {"code": 137}}}
    assert stood(killed) == []
    assert run.nodes == {"node1": "failed"}
    run.asked = "down"
    assert stood(killed) == []
    assert run.nodes == {"node1": "down"}


def test_a_lab_host_that_does_not_say_has_failed(run: SimpleNamespace) -> None:
    assert stood(None) == ["the lab host does not say what its nodes are doing"]


@pytest.mark.parametrize("on", [LAB, NODE])
def test_a_node_waits_for_its_lab_host_without_a_command(on: str) -> None:
    assert commands_of(carried.ready, on=on) == []


def test_a_node_of_a_failed_lab_host_fails_and_the_host_itself_does_not() -> None:
    said: list[tuple[str, str]] = []
    wanted = f"lab host {LAB} failed earlier in this run, so its nodes stay as they are"
    assert commands_of(carried.ready, on=NODE, failed={LAB}, reasons=said) == [wanted]
    assert said == [(NODE, wanted)]
    assert commands_of(carried.ready, on=LAB, failed={LAB}) == []
