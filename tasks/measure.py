"""Procedure: "REALIZAR PRUEBAS …": pyinfra inventory.py tasks/measure.py

The tests between all nodes that are up; each result is a row of the ledger (measure.ledger).
``umlaan measure`` does the same with options, ``umlaan report`` shows it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra.context import host
from pyinfra.context import state as context_state
from rich.console import Console

from umlaan.facts.node import node_rows
from umlaan.inventory import is_lab_host
from umlaan.measure import compare, session, table
from umlaan.measure.assemble import NotMeasurable, assemble
from umlaan.measure.cases import plan
from umlaan.measure.ledger import Reading
from umlaan.measure.sides import SideError
from umlaan.operations import standing
from umlaan.operations.common import executing, fail, lab
from umlaan.operations.operation import operation
from umlaan.plan.sshto import ssh_to
from umlaan.run import begin, current

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


@operation()
def measured() -> Generator[PyinfraCommand, None, None]:
    """Every test between all nodes of the lab that are up. It changes nothing.

    Fails if a row is no figure, with its reason; the rows stand in the ledger all the same.
    """
    if not executing():
        return
    rows: dict[str, dict[str, object]] = {}
    via: dict[str, list[str]] = {}
    for one in lab().hosts:
        on = context_state.inventory.get_host(one.name)
        rows.update(node_rows(on, lab(), lab().nodes_on(one.name)))
        local = type(on.connector).__name__ == "LocalConnector"
        via[one.name] = [] if local else ssh_to(on.name, on.data.dict())
    try:
        bench, places, down = assemble(lab(), rows, via, say=_say)
        for line in down:
            _say(f"left out: {line}")
        path = bench.measure.ledger
        found = session.run(bench, plan(places, bench.measure), path)
    except (NotMeasurable, SideError, OSError) as error:
        yield from fail(str(error))
        return
    made = compare.report([Reading(path, found)])
    console = Console(width=160, highlight=False)
    with console.capture() as shown:
        console.print(table.table(made))
    current().tables.append(shown.get())
    if made.failed:
        yield from fail("\n".join(table.reasons(made)))


def _say(text: str) -> None:
    print(text, flush=True)


# pyinfra executes a deploy file without a name of its own; an import never comes here.
if __name__ == "builtins":
    begin()
    if is_lab_host(host):
        standing.noted(name="What is up")
        if host.name == lab().hosts[0].name:
            measured(name="Measure")
