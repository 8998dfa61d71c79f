"""``umlaan explain``: what a stage or operation declares, which lines of the page it replaces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from umlaan.cli.chosen import Chosen
from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, chosen
from umlaan.cli.runs import DryRun
from umlaan.cli.show import hint, output, table
from umlaan.model.outputs import PlanOutput
from umlaan.plan import explain as plan

PROJECT = Path(__file__).resolve().parents[2]


def sources(folder: Path) -> dict[str, str]:
    """{module: text} of a folder of the project."""
    return {
        path.stem: path.read_text()
        for path in sorted(folder.glob("*.py"))
        if not path.name.startswith("_")
    }


def names(incomplete: str) -> list[str]:
    """Stages and operations for the shell's completion."""
    found = [stage.task for stage in _stages()]
    found += [one.name for one in plan.operations_of(sources(PROJECT / "umlaan/operations"))]
    return [name for name in dict.fromkeys(found) if name.startswith(incomplete)]


def _stages() -> list[plan.Stage]:
    return plan.stages_of((PROJECT / "deploy.py").read_text(), sources(PROJECT / "tasks"))


def command(
    ctx: typer.Context,
    what: Annotated[
        str | None, typer.Argument(metavar="[STAGE|OPERATION]", autocompletion=names)
    ] = None,
    no_plan: Annotated[
        bool, typer.Option("--no-plan", help="Do not look what it would do now.")
    ] = False,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Say what a stage or an operation declares, the lines of the procedure, what it would do now.

    Without a name: all stages in the order of deploy.py.

    Example: [bold]umlaan explain network[/]
    """
    stages = _stages()
    if what is None:
        return _list(stages)
    operations = plan.operations_of(sources(PROJECT / "umlaan/operations"))
    lines = plan.lines_of((PROJECT / "docs/procedure.md").read_text())
    wanted = plan.stages_named(what, stages)
    if wanted:
        called = {call.operation for stage in wanted for call in stage.calls}
        told = [one for one in operations if one.name in called]
    else:
        told = plan.operations_named(what, operations)
    if not told and not wanted:
        known = ", ".join(dict.fromkeys(stage.task.partition(".")[0] for stage in stages))
        raise Fault(f"{what}: no such stage or operation", f"stages: {known}")
    planning = None if no_plan else _planning(chosen(ctx, inventory, data))
    for stage in wanted:
        output().print(f"[bold]{stage.name}[/]  [dim]tasks/{stage.task.replace('.', '.py: ')}[/]")
        output().print(f"  {stage.says}", markup=False)
    for one in told:
        _operation(one, plan.lines_for(one.name, lines))
    if planning is not None:
        shown = {one.name for one in told}
        calls = [(s, c) for s in stages for c in s.calls if c.operation in shown]
        try:
            _now(planning.result(), calls)
        except Fault as fault:
            hint(f"what it would do now is not known: {fault}")
    return 0


def _planning(choice: Chosen) -> DryRun | None:
    """A plan in the background; without an inventory here the explanation does without."""
    try:
        return DryRun(choice)
    except Fault as fault:
        hint(f"what it would do now is not looked at: {str(fault).splitlines()[0]}")
        return None


def _operation(one: plan.Operation, lines: list[plan.Line]) -> None:
    output().print(
        f"\n[bold]{one.name}[/]  [dim]umlaan/operations/{one.name.partition('.')[0]}.py[/]"
    )
    for text in one.says.splitlines():
        output().print(f"  {text}", markup=False)
    if lines:
        output().print("  in place of:", style="dim")
    for line in lines:
        note = f"  [dim]{_plain(line.note)}[/]" if line.note else ""
        output().print(f"    {_plain(line.text)}{note}")


def _plain(text: str) -> str:
    """Markdown's ticks away, rich's own brackets kept as they are."""
    return re.sub(r"`", "", text).replace("[", r"\[")


def _now(found: PlanOutput, calls: list[tuple[plan.Stage, plan.Call]]) -> None:
    rows = [
        change
        for change in found.changes
        if any(call.matches(stage.name, change.operation) for stage, call in calls)
    ]
    output().print("\n[bold]now[/]")
    for row in rows:
        output().print(f"  {row.host}: {row.reason}", markup=False)
    if rows:
        hint("next: umlaan up makes these changes, with all others that umlaan plan shows")
    else:
        output().print("  it would change nothing", markup=False)


def _list(stages: list[plan.Stage]) -> int:
    rows = table("stage", "name", "declares")
    for stage in stages:
        rows.add_row(stage.name, stage.task, stage.says.splitlines()[0] if stage.says else "")
    output().print(rows)
    hint("more: umlaan explain NAME")
    return 0
