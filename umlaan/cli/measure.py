"""``umlaan measure``: the procedure's tests on the lab as it runs, into a ledger."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, JsonOption, chosen
from umlaan.cli.show import errors, hint, output
from umlaan.plan import lablock

if TYPE_CHECKING:
    from umlaan.cli.session import Session
    from umlaan.measure.ledger import Row
    from umlaan.model.measure import Measure

# What --quick means: every test once over, in a minute or two.
QUICK = {
    "repeats": 2,
    "warmup": 0,
    "message_count": 50,
    "copy_sizes": ("1K", "64K", "1M"),
    "copy_count": 20,
    "file_size": "8M",
    "ping_count": 20,
}


def command(
    ctx: typer.Context,
    test: Annotated[
        list[str] | None,
        typer.Option("--test", "-t", help="Only this test; repeatable: ping, message, copy, …"),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", "-n", help="Only between these nodes; repeatable."),
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Repeats a row.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two repeats, few sizes, a small file.")
    ] = False,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be measured; measure nothing.")
    ] = False,
    ledger: Annotated[
        Path | None, typer.Option(help="Where rows are added. Default: measure.ledger of the data.")
    ] = None,
    as_json: JsonOption = False,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """The procedure's tests between all nodes that are up: messages, blocks, files, ping, scp.

    Each result is a row of the ledger at once. Exit code 1 if one of them failed.
    Examples: umlaan measure --quick; umlaan measure -t copy -n node0 -n node1 --repeats 10;
    umlaan measure --data measure.file_size=8M
    """
    from umlaan.cli.session import open_session
    from umlaan.measure import session as runs
    from umlaan.measure.assemble import NotMeasurable, assemble
    from umlaan.measure.cases import plan
    from umlaan.measure.sides import SideError

    session = open_session(chosen(ctx, inventory, data))
    lab = session.lab
    names = [f"node{name}" if name.isdigit() else name for name in node or ()]
    wanted = settings(lab.settings(lab.hosts[0].name).measure, test, repeats, quick)
    ledger = ledger or Path(wanted.ledger)
    via = {host.name: session.via(host.name) for host in lab.hosts}
    with locked(session) if not only_plan else _nothing():
        try:
            bench, places, down = assemble(lab, rows_of(session), via, names, say)
            bench.measure = wanted
            planned = plan(places, wanted)
            for line in down:
                say(f"left out: {line}")
            if only_plan:
                for case in planned.cases:
                    output().print(case.label, markup=False)
                for line in planned.left_out:
                    hint(f"left out: {line}")
                return 0
            found = runs.run(bench, planned, ledger)
        except (NotMeasurable, SideError) as error:
            raise Fault(str(error), "umlaan status says what is up") from None
        except OSError as error:
            raise Fault(f"{error.filename or ledger}: {error.strerror}") from None
    return told(found, ledger, as_json)


def settings(base: Measure, tests: list[str] | None, repeats: int | None, quick: bool) -> Measure:
    """The data's settings with the options laid over them. Fault for what is not allowed."""
    from pydantic import ValidationError

    from umlaan.model.measure import ALL_TESTS, Measure

    changes: dict[str, object] = dict(QUICK) if quick else {}
    if tests:
        for name in tests:
            if name not in ALL_TESTS:
                raise Fault(f"--test {name}: must be one of {', '.join(ALL_TESTS)}", code=64)
        changes["tests"] = tuple(dict.fromkeys(tests))
    if repeats is not None:
        changes["repeats"] = repeats
    try:
        return Measure.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        fault = error.errors()[0]
        raise Fault(f"--{fault['loc'][0]}: {fault['msg']}", code=64) from None


def rows_of(session: Session) -> dict[str, dict[str, object]]:
    """What each node is doing, by name."""
    from umlaan.facts.node import node_rows

    rows: dict[str, dict[str, object]] = {}
    for host in session.lab.hosts:
        nodes = session.lab.nodes_on(host.name)
        if nodes:
            rows.update(node_rows(session.host(host.name), session.lab, nodes))
    return rows


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def locked(session: Session) -> Iterator[None]:
    """The lab's lock on every lab host: no run changes what is being measured."""
    from umlaan.run import holder

    held: list[subprocess.Popen[str]] = []
    try:
        for host in session.lab.hosts:
            words = lablock.words(host.lab, f"umlaan measure, {holder()}")
            line = f"exec env {session.agent(host.name)} {shlex.join(words)}"
            process = subprocess.Popen(
                session.argv(host.name, line),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            held.append(process)
            answer = process.stdout.readline().strip() if process.stdout else ""
            if (refused := lablock.refusal(host.name, answer)) is not None:
                raise Fault(refused)
        yield
    finally:
        for process in held:
            if process.stdin:
                process.stdin.close()
            process.wait(10)


def say(text: str) -> None:
    """Progress, on standard error."""
    errors().print(text, markup=False, soft_wrap=True)


def told(rows: list[Row], ledger: Path, as_json: bool) -> int:
    """The rows of this run as a table or JSON Lines; the exit code."""
    from umlaan.measure import compare, table
    from umlaan.measure.ledger import Reading

    if as_json:
        for row in rows:
            print(json.dumps(row.model_dump(mode="json", exclude_none=True)))
    elif rows:
        made = compare.report([Reading(str(ledger), rows)])
        output().print(table.table(made))
        for line in made.notices:
            hint(line)
    failed = sum(row.verdict == "failed" for row in rows)
    hint(f"{len(rows)} rows added to {ledger}; see them with umlaan report {ledger} -o FILE.html")
    if failed:
        errors().print(f"{failed} of {len(rows)} failed", style="red", markup=False)
    return 1 if failed or not rows else 0
