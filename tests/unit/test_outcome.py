"""What a run writes for the program that asked: each reason under the operation that said it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from pyinfra.api.state import StateStage

from umlaan import outcome
from umlaan.plan.verdict import Summary
from umlaan.run import Run

SUMMARY = Summary(changed=1, operations=3, failed=0, seconds=2.345, verdict="drifted")
REPO = Path(__file__).resolve().parents[2]
SCHEMA = REPO / "docs/schemas/plan.json"


class Meta:
    def __init__(self, maybe: bool, did: bool | None) -> None:
        self._maybe_is_change, self.did = maybe, did

    def is_complete(self) -> bool:
        return self.did is not None

    def did_change(self) -> bool:
        return bool(self.did)


def state_of(*operations: tuple[str, bool, bool | None], **said: str) -> Any:
    """operations: (name, would change, did change or None); said: reasons by hash h0, h1, …"""
    host = SimpleNamespace(name="@local")
    names = {f"h{i}": name for i, (name, _, _) in enumerate(operations)}
    data = {
        f"h{i}": SimpleNamespace(operation_meta=Meta(maybe, did))
        for i, (_, maybe, did) in enumerate(operations)
    }

    class State:
        inventory = [host]
        ops = SimpleNamespace(get=lambda _host, _default: data)
        op_meta = {h: SimpleNamespace(names={name}) for h, name in names.items()}
        umlaan_reasons = [("@local", text) for text in said.values()]
        umlaan_steps = {("@local", text): names[h] for h, text in said.items() if h in names}

        def get_op_order(self) -> list[str]:
            return list(names)

    return State()


def test_a_plan_has_each_change_with_its_operation() -> None:
    state = state_of(
        ("Network | Bridge", True, None),
        ("Launch | Launch", True, None),
        ("Root | Root", False, None),
        h0="bridge br0: make, it is missing",
        h2="a word that changes nothing",
    )
    changes, messages = outcome.told(state, dry=True)
    assert [(c.operation, c.reason) for c in changes] == [
        ("Network | Bridge", "bridge br0: make, it is missing"),
        ("Launch | Launch", outcome.UNSAID),
    ]
    assert [m.reason for m in messages] == ["a word that changes nothing"]


def test_after_a_run_only_what_changed_counts() -> None:
    state = state_of(("A", True, False), ("B", True, True), ("C", True, None), h1="b: changed")
    changes, _ = outcome.told(state, dry=False)
    assert [c.reason for c in changes] == ["b: changed"]


def test_written_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(outcome.VARIABLE, raising=False)
    outcome.write(state_of(), "x", SUMMARY, dry=True)
    path = tmp_path / "plan.json"
    monkeypatch.setenv(outcome.VARIABLE, str(path))
    outcome.write(state_of(("A", True, None), h0="why"), "x", SUMMARY, dry=True)
    found = json.loads(path.read_text())
    assert (found["changed"], found["verdict"], found["seconds"]) == (1, "drifted", 2.35)
    assert found["changes"] == [{"host": "@local", "operation": "A", "reason": "why"}]
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))


def test_a_file_that_cannot_be_written_does_not_take_the_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(outcome.VARIABLE, "/dev/null/plan.json")
    state = state_of()
    state.inventory, state.failed_hosts = [], set()
    state.current_stage = StateStage.Execute
    one = Run(state, SimpleNamespace(name="umlaan"), "absent")  # type: ignore[arg-type]
    one.finish()
    said = capsys.readouterr()
    assert said.out.startswith("umlaan: changed=0 operations=0 failed=0 ")
    assert said.err.startswith("UMLAAN_PLAN_FILE: not written: ")


def test_a_locale_without_arrows_does_not_take_the_last_line() -> None:
    script = (
        "from types import SimpleNamespace as S; from pyinfra.api.state import StateStage\n"
        "from umlaan.run import Run\n"
        "state = S(inventory=[], failed_hosts=set(), current_stage=StateStage.Execute, ops={})\n"
        "run = Run(state, S(name='umlaan'), 'absent')\n"
        "run.tables = ['node0 \\u2194 node1  ok']\n"
        "raise SystemExit(run.finish())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONIOENCODING": "iso8859-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[0] == "node0 ? node1  ok", done.stderr
    assert done.stdout.splitlines()[1].startswith("umlaan: changed=0 ")
    assert done.returncode == 0
