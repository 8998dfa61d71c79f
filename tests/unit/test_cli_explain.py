"""umlaan explain reads stages and operations from the code; docs/procedure.md must agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from umlaan.cli.app import code_of
from umlaan.cli.explain import sources
from umlaan.plan import explain as plan

REPO = Path(__file__).resolve().parents[2]
STAGES = plan.stages_of((REPO / "deploy.py").read_text(), sources(REPO / "tasks"))
OPERATIONS = plan.operations_of(sources(REPO / "umlaan/operations"))
TABLE = (REPO / "docs/procedure.md").read_text()


def test_stages_come_in_the_order_of_the_run() -> None:
    tasks = [stage.task for stage in STAGES]
    wanted = ["preflight.check", "network.bridge", "root.install", "launch.launch", "verify.node"]
    assert [task for task in tasks if task in wanted] == wanted
    assert tasks.index("network.away") > tasks.index("verify.node")
    assert all(stage.says for stage in STAGES)


def test_every_operation_that_a_stage_calls_is_known() -> None:
    known = {one.name for one in OPERATIONS}
    called = {call.operation for stage in STAGES for call in stage.calls}
    assert called - known == set()
    assert all(one.says for one in OPERATIONS)


def test_every_operation_that_the_table_names_is_there() -> None:
    names = {one.name for one in OPERATIONS} | {one.name.partition(".")[0] for one in OPERATIONS}
    said = {
        name
        for line in plan.lines_of(TABLE)
        for name in re.findall(r"`operations\.([\w.]+)`", line.by)
    }
    assert said
    assert said - names == set()


def test_the_pages_lines_of_an_operation() -> None:
    lines = [line.text for line in plan.lines_for("network.tap", plan.lines_of(TABLE))]
    assert "`tunctl -u root -t HTAP`" in lines
    assert "`brctl addbr br0`" not in lines


@pytest.mark.parametrize(
    "word", ["network.tap", "operations.network.tap", "umlaan.operations.network.tap"]
)
def test_an_operation_by_its_names(word: str) -> None:
    assert [one.name for one in plan.operations_named(word, OPERATIONS)] == ["network.tap"]


def test_a_stage_by_its_names() -> None:
    assert {s.task for s in plan.stages_named("Launch", STAGES)} >= {"launch.launch"}
    assert [s.task for s in plan.stages_named("tasks.root.base", STAGES)] == ["root.base"]
    assert plan.stages_named("nothing", STAGES) == []


def test_which_change_of_a_run_is_a_calls() -> None:
    stage = next(s for s in STAGES if s.task == "kernel.kernels")
    call = next(c for c in stage.calls if c.operation == "kernel.built")
    assert call.matches("Kernels", "Kernels | UML kernel from package linux-source-6.1")
    assert not call.matches("Kernels", "Network | UML kernel from package linux-source-6.1")
    assert not call.matches("Kernels", "Kernels | Build root")


def test_a_table_cell_may_hold_a_bar() -> None:
    (line,) = plan.lines_of("| a | declared by | c |\n| --- | --- | --- |\n| `x \\| y` | z | |\n")
    assert line == plan.Line("`x | y`", "z", "")


def test_explained_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(["explain", "network.tap", "--no-plan"]) == 0
    out = capsys.readouterr().out
    assert "in place of:" in out and "tunctl -u root -t HTAP" in out
    assert code_of(["explain", "nothing", "--no-plan"]) == 1
    assert "no such stage or operation" in capsys.readouterr().err
