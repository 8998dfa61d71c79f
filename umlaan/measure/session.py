"""One run of umlaan measure: every case in order, each row on the disk before the next begins."""

from __future__ import annotations

from pathlib import Path

from umlaan.measure import ledger
from umlaan.measure.bench import Bench
from umlaan.measure.cases import Plan
from umlaan.measure.ledger import Row
from umlaan.measure.runner import measure_case
from umlaan.measure.table import number, spread
from umlaan.measure.transfers import clean


def run(bench: Bench, plan: Plan, path: str | Path) -> list[Row]:
    """Measure every case into the ledger, saying each; its rows. OSError if it cannot be written.

    Whatever ends it (Ctrl-C too), the rows so far are kept and the files it sent are removed.
    """
    rows: list[Row] = []
    for line in plan.left_out:
        bench.say(f"left out: {line}")
    try:
        for index, case in enumerate(plan.cases, start=1):
            bench.say(f"[{index}/{len(plan.cases)}] {case.label} …")
            row = measure_case(bench, case)
            ledger.append(path, row)
            rows.append(row)
            bench.say(f"    {said(row)}")
    finally:
        clean(bench)
    return rows


def said(row: Row) -> str:
    """A row in one line."""
    if row.figures is None:
        return f"FAILED: {row.reason}"
    return f"{number(row.figures.median)} {row.unit} ({spread(row)})"
