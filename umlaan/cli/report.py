"""``umlaan report``: a ledger of measurements as a table here, or as one HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from umlaan.cli.fault import Fault
from umlaan.cli.options import JsonOption
from umlaan.cli.show import errors, hint, output

DEFAULT = "measurements.jsonl"


def command(
    ledger: Annotated[Path, typer.Argument(help="The ledger.")] = Path(DEFAULT),
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.html", help="Write the page, too."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A second ledger: side by side, with ratios.")
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(help="Give it twice: two kernels of the ledger side by side."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """What was measured: a table, and with -o one self-contained HTML page with plots.

    Examples: umlaan report -o lab.html; umlaan report --kernel 4.9.88 --kernel 6.1;
    umlaan report before.jsonl --against after.jsonl -o both.html
    """
    from umlaan.measure import compare, report, table
    from umlaan.measure.ledger import LedgerError, read

    kernels = kernel or []
    if kernels and (len(kernels) != 2 or against):
        raise Fault("--kernel is given twice, and not together with --against", code=64)
    try:
        readings = [read(path) for path in (ledger, against) if path]
        made = compare.report(readings, kernels)
        if out:
            report.write(made, out)
    except (LedgerError, report.ReportError) as error:
        raise Fault(str(error)) from None
    except OSError as error:
        raise Fault(f"{error.filename}: {error.strerror}") from None
    if as_json:
        print(json.dumps(compare.as_json(made), indent=1))
    else:
        output().print(table.table(made))
    for line in table.reasons(made):
        errors().print(f"failed: {line}", style="red", markup=False, soft_wrap=True)
    for line in made.notices:
        hint(line)
    if out:
        hint(f"written: {out}")
    elif not as_json:
        hint("as a page with plots: umlaan report -o FILE.html")
    return 0
