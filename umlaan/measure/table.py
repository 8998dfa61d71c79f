"""The report in the terminal: one table, rows as the page has them."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from umlaan.agent.visible import word
from umlaan.measure.compare import Entry, Report
from umlaan.measure.ledger import Row


def number(value: float) -> str:
    """Three digits that matter: 0.0123, 1.23, 123."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}" if value < 1 else f"{value:.{2 if value < 10 else 1}f}"


def spread(row: Row) -> str:
    """min – max of the repeats."""
    figures = row.figures
    return f"{number(figures.min)} – {number(figures.max)}" if figures else ""


def table(report: Report) -> Table:
    """One row a measurement; with two sides their medians, the ratio and what it means."""
    two = len(report.sides) == 2
    out = Table(
        title=_plain(_title(report)), title_justify="left", box=box.SIMPLE_HEAD, header_style="bold"
    )
    for name in ("test", "of", "client → server"):
        out.add_column(name)
    if two:
        for side in report.sides:
            out.add_column(_plain(side.label), justify="right")
        for name in ("unit", "ratio", "difference"):
            out.add_column(name, justify="right" if name == "ratio" else "left")
    else:
        for name in ("median", "min – max", "IQR", "n"):
            out.add_column(name, justify="right")
        out.add_column("unit")
        out.add_column("published", justify="right")
    for entry in report.entries:
        head = [_plain(part) for part in (entry.key.test, entry.key.what, entry.key.direction)]
        out.add_row(*head, *(_compared(entry) if two else _single(entry)))
    return out


def _plain(text: str) -> Text:
    """A word of the ledger's: no markup, whatever stands in it."""
    return Text(word(text))


def reasons(report: Report) -> list[str]:
    """What happened to each failed row, a line each."""
    return [
        f"{entry.key.test} {entry.key.what}, {entry.key.direction}: {word(row.reason)}"
        for entry in report.entries
        for row in entry.rows
        if row and row.verdict == "failed"
    ]


def _title(report: Report) -> str:
    rows, bad = len(report.rows), len(report.failed)
    names = " against ".join(side.label for side in report.sides)
    return f"{names}: {rows} results" + (f", {bad} failed" if bad else "")


def _single(entry: Entry) -> list[str | Text]:
    row, figures = entry.row, entry.row.figures
    if figures is None:
        return [Text("failed", style="bold red")]
    known = entry.reference
    return [
        Text(number(figures.median), style="bold"),
        spread(row),
        number(figures.iqr),
        str(len(figures.values)),
        _plain(row.unit),
        number(known.value) if known else "",
    ]


def _compared(entry: Entry) -> list[str | Text]:
    cells: list[str | Text] = []
    for row in entry.rows:
        if row is None:
            cells.append(Text("not measured", style="dim"))
        elif row.figures is None:
            cells.append(Text("failed", style="bold red"))
        else:
            cells.append(number(row.figures.median))
    difference = entry.difference
    if difference is None:
        return [*cells, _plain(entry.row.unit)]
    style = {"faster": "green", "slower": "red"}.get(difference.words, "dim")
    return [
        *cells,
        _plain(entry.row.unit),
        f"{difference.ratio:.2f}",
        Text(difference.words, style=style),
    ]
