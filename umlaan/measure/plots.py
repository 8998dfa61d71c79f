"""The report's plots, as plotly figures: what to draw; the page says how it looks.

plotly because one library gives hover, zoom, log axes and grouping in a page that needs no
network; its 4.8 MB of JavaScript go into the page once.
"""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

from umlaan.measure import history, marks
from umlaan.measure.cases import human
from umlaan.measure.compare import Entry, Key, Report
from umlaan.measure.ledger import Row
from umlaan.measure.marks import Plot
from umlaan.measure.reference import REFERENCES


def plots(report: Report) -> list[Plot]:
    """Every plot that the report has rows for."""
    makers: list[Callable[[Report], Plot | None]] = [
        throughput,
        files,
        latency,
        history.throughput,
        history.latency,
    ]
    return [plot for make in makers if (plot := make(report)) is not None]


def throughput(report: Report) -> Plot | None:
    """Block copy: MB/s over the block's size, a line a direction."""
    rows = [(e, s, r) for e, s, r in _measured(report) if e.key.test == "copy"]
    if not rows:
        return None
    figure = go.Figure()
    series = _series(rows)
    colours = _colours(rows)
    for (label, side), found in list(series.items())[: marks.MOST_SERIES]:
        points = sorted((r.parameters.size or 0, r) for _, _, r in found)
        figure.add_trace(
            go.Scatter(
                x=[size for size, _ in points],
                y=[marks.median(row) for _, row in points],
                error_y=marks.bars(row for _, row in points),
                customdata=[[human(size), *marks.hover(row)] for size, row in points],
                hovertemplate=marks.HOVER,
                mode="lines+markers",
                name=label,
                line={"dash": "dash" if side else "solid"},
                marker={
                    "color": colours[found[0][0].key.direction],
                    "size": 8,
                    "symbol": marks.SYMBOLS[side],
                },
            )
        )
    sizes = sorted({r.parameters.size or 0 for _, _, r in rows})
    for known in REFERENCES:
        if known.test == "copy" and known.parameters.size in sizes:
            marks.line(figure, known)
    figure.update_xaxes(type="log", tickvals=sizes, ticktext=[human(s) for s in sizes])
    figure.update_yaxes(title="MB/s", **marks.LOG)
    return Plot(
        "throughput",
        "Block copy: throughput by block size",
        "Median of the repeats; bars from the slowest to the fastest. Logarithmic."
        + marks.dropped(len(series)),
        marks.dressed(figure, 380),
    )


def files(report: Report) -> Plot | None:
    """m3ftp and scp: MB/s, a line a test and buffer, the procedure's own figures beside them."""
    rows = [(e, s, r) for e, s, r in _measured(report) if e.key.test.startswith(("m3ftp", "scp"))]
    if not rows:
        return None
    figure = go.Figure()
    names = list(dict.fromkeys(_file_test(e.key) for e, _, _ in rows))
    series = _series(rows)
    colours = _colours(rows)
    for index, ((label, side), found) in enumerate(list(series.items())[: marks.MOST_SERIES]):
        measured = [r for _, _, r in found]
        figure.add_trace(
            go.Scatter(
                y=[_file_test(e.key) for e, _, _ in found],
                x=[marks.median(row) for row in measured],
                error_x=marks.bars(measured),
                customdata=[[_file_test(e.key), *marks.hover(r)] for e, _, r in found],
                hovertemplate=marks.HOVER,
                mode="markers",
                orientation="h",
                offsetgroup=str(index),
                name=label,
                marker={
                    "color": colours[found[0][0].key.direction],
                    "size": 10,
                    "symbol": marks.SYMBOLS[side],
                },
            )
        )
    known = {_file_test(e.key): ref for e, _, _ in rows if (ref := e.reference)}
    if known:
        figure.add_trace(
            go.Scatter(
                y=list(known),
                x=[ref.value for ref in known.values()],
                text=[
                    f"{ref.source}: {ref.value:.2f} MB/s ({ref.detail})" for ref in known.values()
                ],
                hovertemplate="%{text}<extra></extra>",
                mode="markers",
                orientation="h",
                offsetgroup="reference",
                name="the procedure, 2020",
                marker={"color": marks.REFERENCE_COLOUR, "size": 13, "symbol": "diamond-open"},
            )
        )
    figure.update_layout(scattermode="group", scattergap=0.4)
    figure.update_xaxes(title="MB/s", **marks.LOG)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return Plot(
        "files",
        "File transfer: m3ftp and scp",
        "Median of the repeats; bars from the slowest to the fastest. Logarithmic."
        + marks.dropped(len(series)),
        marks.dressed(figure, 140 + 62 * len(names)),
    )


def latency(report: Report) -> Plot | None:
    """Message pair and ping: the distribution, a box a direction."""
    every = [(e, s, r) for e, s, r in _measured(report) if r.unit == "ms/exchange"]
    if not every:
        return None
    figure = go.Figure()
    directions = list(dict.fromkeys(e.key.direction for e, _, _ in every))
    rows = [(e, s, r) for e, s, r in every if e.key.direction in directions[: marks.MOST_SERIES]]
    tests = list(dict.fromkeys(r.test for _, _, r in rows))
    names: list[str] = []
    for entry, side, row in rows:
        values = row.samples or (row.figures.values if row.figures else ())
        name = _latency_name(report, entry, side)
        names.append(name)
        figure.add_trace(
            go.Box(
                x=list(values),
                y=[name] * len(values),
                orientation="h",
                boxpoints="all" if len(values) <= 60 else "outliers",
                jitter=0.5,
                pointpos=0,
                marker={"color": marks.COLOURS[tests.index(row.test)], "size": 4, "opacity": 0.7},
                hovertemplate="%{x:.3f} ms<extra></extra>",
                name=name,
                showlegend=False,
            )
        )
    for known in REFERENCES:
        if known.test in tests:
            marks.line(figure, known)
    figure.update_xaxes(title="ms an exchange", **marks.LOG)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return Plot(
        "latency",
        "Latency: message pair and ping",
        "Message pair: a point is the mean of one repeat. Ping: a point is one round trip. "
        "Box: the middle half, with the median. Logarithmic." + marks.dropped(len(directions)),
        marks.dressed(figure, 150 + 46 * len(names)),
    )


def _measured(report: Report) -> list[tuple[Entry, int, Row]]:
    """The rows with figures; of those that differ in count or file alone, the newest."""
    newest: dict[tuple[object, ...], tuple[Entry, int, Row]] = {}
    for entry in report.entries:
        key, p = entry.key, entry.key.parameters
        for side, row in enumerate(entry.rows):
            if row is None or row.figures is None:
                continue
            place = (key.test, key.direction, p.buffer, p.size, side)
            known = newest.get(place)
            if known is None or row.time > known[2].time:
                newest[place] = (entry, side, row)
    return list(newest.values())


def _series(
    rows: list[tuple[Entry, int, Row]],
) -> dict[tuple[str, int], list[tuple[Entry, int, Row]]]:
    """Rows by direction and side; the side is named only where there are two."""
    two = len({len(entry.rows) for entry, _, _ in rows} & {2}) > 0
    out: dict[tuple[str, int], list[tuple[Entry, int, Row]]] = {}
    for entry, side, row in rows:
        name = f"{entry.key.direction}, {'AB'[side]}" if two else entry.key.direction
        out.setdefault((name, side), []).append((entry, side, row))
    return out


def _colours(rows: list[tuple[Entry, int, Row]]) -> dict[str, str]:
    """A colour a direction, the same on both sides."""
    directions = dict.fromkeys(entry.key.direction for entry, _, _ in rows)
    return {name: marks.COLOURS[i % len(marks.COLOURS)] for i, name in enumerate(directions)}


def _latency_name(report: Report, entry: Entry, side: int) -> str:
    words = [entry.key.test, entry.key.direction]
    same = [e for e in report.entries if (e.key.test, e.key.direction) == tuple(words)]
    if len(same) > 1:
        words.append(entry.key.what)
    if len(report.sides) == 2:
        words.append("AB"[side])
    return "<br>".join([" ".join(words[:1]), ", ".join(words[1:])])


def _file_test(key: Key) -> str:
    name = key.test.replace("-", " ")
    return f"{name}<br>{human(key.parameters.buffer)}" if key.parameters.buffer else name
