"""``umlaan plan``: what a run would change and why; nothing is changed."""

from __future__ import annotations

import typer

from umlaan.cli.options import DataOption, InventoryOption, JsonOption, NodesArgument, chosen
from umlaan.cli.runs import DryRun, limits
from umlaan.cli.show import as_json, hint, output, plain
from umlaan.model.outputs import PlanOutput

DRIFTED = 2


def command(
    ctx: typer.Context,
    nodes: NodesArgument = None,
    inventory: InventoryOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Show each change that umlaan up would make, with its reason. NODE limits it to some.

    Exit code 0 nothing to do, 2 changes, 1 error.

    Example: [bold]umlaan plan --json | jq .changed[/]
    """
    choice = chosen(ctx, inventory, data)
    found = DryRun(choice, limit=limits(choice, nodes)).result()
    if json:
        print(as_json(found))
    else:
        show(found)
    if found.verdict == "failed":
        return 1
    return DRIFTED if found.changed else 0


def show(found: PlanOutput) -> None:
    """The plan for a person: a line a change, under its operation."""
    last = ""
    for change in found.changes:
        head = f"{change.host}  {change.operation}"
        if head != last:
            output().print(f"[bold]{plain(change.host)}[/]  [dim]{plain(change.operation)}[/]")
            last = head
        output().print(f"    {change.reason}", markup=False)
    for message in found.messages:
        output().print(f"{message.host}: {message.reason}", style="yellow", markup=False)
    if found.verdict == "failed":
        hint("next: mend what is said above, then umlaan plan again")
    elif found.changed:
        said = len(found.changes)
        output().print(f"{said} change{'s' * (said != 1)}, {found.operations} operations looked")
        hint("next: umlaan up makes them")
    else:
        output().print(
            f"nothing to do: {found.operations} operations looked, the lab is as declared"
        )
