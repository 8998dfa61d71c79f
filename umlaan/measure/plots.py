"""The report's plots, as plotly figures: what to draw; the page says how it looks.

plotly because one library gives hover, zoom, log axes and grouping in a page that needs no
network; its 4.8 MB of JavaScript go into the page once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

from umlaan.measure.cases import human
from umlaan.measure.compare import Entry, Key, Report, kernels
from umlaan.measure.ledger import UNITS, Row
from umlaan.measure.reference import REFERENCES, Reference

# Legible on white and on near-black; apart for most colour-blind readers.
COLOURS = ("#2f7ed8", "#e8710a", "#17a673", "#a45ee5", "#d6336c", "#b08900", "#0b9aa8")
REFERENCE_COLOUR = "#8a8f98"
REFERENCE_DASH = {"copy": "dash", "message": "dash", "ping": "dot"}
SYMBOLS = ("circle", "square-open")
MOST_SERIES = 6


@dataclass(frozen=True)
class Plot:
    """A figure with its heading and the sentence that says how to read it."""

    id: str
    title: str
    caption: str
    figure: go.Figure


def plots(report: Report) -> list[Plot]:
    """Every plot that the report has rows for."""
    makers: list[Callable[[Report], Plot | None]] = [
        throughput,
        files,
        latency,
        throughput_history,
        latency_history,
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
    for (label, side), found in list(series.items())[:MOST_SERIES]:
        points = sorted((r.parameters.size or 0, r) for _, _, r in found)
        figure.add_trace(
            go.Scatter(
                x=[size for size, _ in points],
                y=[_median(row) for _, row in points],
                error_y=_bars(row for _, row in points),
                customdata=[[human(size), *_hover(row)] for size, row in points],
                hovertemplate=_HOVER,
                mode="lines+markers",
                name=label,
                line={"dash": "dash" if side else "solid"},
                marker={
                    "color": colours[found[0][0].key.direction],
                    "size": 8,
                    "symbol": SYMBOLS[side],
                },
            )
        )
    sizes = sorted({r.parameters.size or 0 for _, _, r in rows})
    for known in REFERENCES:
        if known.test == "copy" and known.parameters.size in sizes:
            _line(figure, known)
    figure.update_xaxes(type="log", tickvals=sizes, ticktext=[human(s) for s in sizes])
    figure.update_yaxes(title="MB/s", **_LOG)
    return Plot(
        "throughput",
        "Block copy: throughput by block size",
        "Median of the repeats; bars from the slowest to the fastest. Logarithmic."
        + _dropped(len(series)),
        _dressed(figure, 380),
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
    for index, ((label, side), found) in enumerate(list(series.items())[:MOST_SERIES]):
        measured = [r for _, _, r in found]
        figure.add_trace(
            go.Scatter(
                y=[_file_test(e.key) for e, _, _ in found],
                x=[_median(row) for row in measured],
                error_x=_bars(measured),
                customdata=[[_file_test(e.key), *_hover(r)] for e, _, r in found],
                hovertemplate=_HOVER,
                mode="markers",
                orientation="h",
                offsetgroup=str(index),
                name=label,
                marker={
                    "color": colours[found[0][0].key.direction],
                    "size": 10,
                    "symbol": SYMBOLS[side],
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
                marker={"color": REFERENCE_COLOUR, "size": 13, "symbol": "diamond-open"},
            )
        )
    figure.update_layout(scattermode="group", scattergap=0.4)
    figure.update_xaxes(title="MB/s", **_LOG)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return Plot(
        "files",
        "File transfer: m3ftp and scp",
        "Median of the repeats; bars from the slowest to the fastest. Logarithmic."
        + _dropped(len(series)),
        _dressed(figure, 140 + 62 * len(names)),
    )


def latency(report: Report) -> Plot | None:
    """Message pair and ping: the distribution, a box a direction."""
    every = [(e, s, r) for e, s, r in _measured(report) if r.unit == "ms/exchange"]
    if not every:
        return None
    figure = go.Figure()
    directions = list(dict.fromkeys(e.key.direction for e, _, _ in every))
    rows = [(e, s, r) for e, s, r in every if e.key.direction in directions[:MOST_SERIES]]
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
                marker={"color": COLOURS[tests.index(row.test)], "size": 4, "opacity": 0.7},
                hovertemplate="%{x:.3f} ms<extra></extra>",
                name=name,
                showlegend=False,
            )
        )
    for known in REFERENCES:
        if known.test in tests:
            _line(figure, known)
    figure.update_xaxes(title="ms an exchange", **_LOG)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return Plot(
        "latency",
        "Latency: message pair and ping",
        "Message pair: a point is the mean of one repeat. Ping: a point is one round trip. "
        "Box: the middle half, with the median. Logarithmic." + _dropped(len(directions)),
        _dressed(figure, 150 + 46 * len(names)),
    )


def throughput_history(report: Report) -> Plot | None:
    """The newest throughput of each kernel."""
    figure = _history(report, "MB/s")
    words = "The newest figure of each kernel, in the order in which they were first measured."
    return figure and Plot("history", "History over kernels: throughput", words, figure)


def latency_history(report: Report) -> Plot | None:
    """The newest latency of each kernel."""
    figure = _history(report, "ms/exchange")
    words = "The same for what an exchange takes: less is better."
    return figure and Plot("history-latency", "History over kernels: latency", words, figure)


def _history(report: Report, unit: str) -> go.Figure | None:
    rows = [row for side in report.sides for row in side.rows if row.figures]
    order = kernels(rows)
    chosen = {key for key in _headlines(report) if UNITS[key.test] == unit}
    if len(order) < 2 or not chosen:
        return None
    newest: dict[Key, dict[str, Row]] = {key: {} for key in sorted(chosen, key=Key.order)}
    for row in sorted(rows, key=lambda row: row.time):
        if (key := Key.of(row)) in newest:
            newest[key][row.kernel] = row
    figure = go.Figure()
    colours: dict[str, str] = {}
    for key, found in newest.items():
        labels = [label for label in order if label in found]
        measured = [found[label] for label in labels]
        name = _history_name(key)
        colour = colours.setdefault(key.test, COLOURS[len(colours) % len(COLOURS)])
        figure.add_trace(
            go.Scatter(
                x=[_two_lines(label) for label in labels],
                y=[_median(row) for row in measured],
                error_y=_bars(measured),
                customdata=[[label, *_hover(found[label])] for label in labels],
                hovertemplate=f"{name}<br>{_HOVER}",
                mode="lines+markers",
                name=name,
                line={"dash": "solid" if key.client < key.server else "dot"},
                marker={"color": colour, "size": 8},
            )
        )
    figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=[_two_lines(x) for x in order]
    )
    figure.update_yaxes(title="MB/s" if unit == "MB/s" else "ms an exchange", **_LOG)
    return _dressed(figure, 400)


def _two_lines(label: str) -> str:
    return label.replace(" (", "<br>(")


_LOG: dict[str, Any] = {"type": "log", "dtick": "D2", "tickformat": "~g"}
_HOVER = "%{customdata[0]}: %{customdata[1]}<br>%{customdata[2]}<extra></extra>"


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
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(directions)}


def _latency_name(report: Report, entry: Entry, side: int) -> str:
    words = [entry.key.test, entry.key.direction]
    same = [e for e in report.entries if (e.key.test, e.key.direction) == tuple(words)]
    if len(same) > 1:
        words.append(entry.key.what)
    if len(report.sides) == 2:
        words.append("AB"[side])
    return "<br>".join([" ".join(words[:1]), ", ".join(words[1:])])


def _headlines(report: Report) -> set[Key]:
    """One size a test: 64 KiB blocks, the largest buffer; for the first pair of nodes."""
    wanted: dict[tuple[str, str], Key] = {}
    pairs = [frozenset((e.key.client, e.key.server)) for e in report.entries]
    for entry in report.entries:
        key = entry.key
        if frozenset((key.client, key.server)) != pairs[0]:
            continue
        if key.test == "copy" and key.parameters.size != 65536:
            wanted.setdefault((key.test, key.direction), key)
        else:
            wanted[key.test, key.direction] = key
    return set(wanted.values())


def _history_name(key: Key) -> str:
    p = key.parameters
    size = p.buffer or (p.size if key.test == "copy" else None)
    return f"{key.test}{f' {human(size)}' if size else ''}, {key.direction}"


def _file_test(key: Key) -> str:
    name = key.test.replace("-", " ")
    return f"{name}<br>{human(key.parameters.buffer)}" if key.parameters.buffer else name


def _median(row: Row) -> float:
    return row.figures.median if row.figures else 0.0


def _bars(rows: Iterable[Row]) -> dict[str, Any]:
    figures = [row.figures for row in rows if row.figures]
    return {
        "type": "data",
        "symmetric": False,
        "array": [f.max - f.median for f in figures],
        "arrayminus": [f.median - f.min for f in figures],
        "thickness": 1.2,
        "width": 4,
    }


def _hover(row: Row) -> list[str]:
    figures = row.figures
    if figures is None:
        return ["", ""]
    return [
        f"{figures.median:.4g} {row.unit}",
        f"{figures.min:.4g} – {figures.max:.4g}, {len(figures.values)} repeats, {row.kernel}",
    ]


def _line(figure: go.Figure, known: Reference) -> None:
    """A published figure as a line across the plot, named in the legend."""
    line = {"color": REFERENCE_COLOUR, "width": 1.5, "dash": REFERENCE_DASH[known.test]}
    throughput = UNITS[known.test] == "MB/s"
    (figure.add_hline if throughput else figure.add_vline)(known.value, line=line)
    unit = "MB/s" if throughput else "ms"
    name = f"{known.source}: {known.test} {known.value:.3g} {unit}"
    # Lines are shapes, and shapes have no legend of their own.
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", line=line, name=name))


def _dropped(series: int) -> str:
    extra = series - MOST_SERIES
    return f" The first {MOST_SERIES} of {series}; the table has all." if extra > 0 else ""


def _dressed(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "inherit", "size": 12},
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        dragmode=False,
        hovermode="closest",
    )
    grid = {"gridcolor": "#9aa0a6", "griddash": "dot", "zeroline": False}
    figure.update_xaxes(automargin=True, showline=False, **grid)
    figure.update_yaxes(automargin=True, showline=False, **grid)
    return figure
