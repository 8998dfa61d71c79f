"""History over kernels: the newest figure of each, in the order in which they were measured."""

from __future__ import annotations

import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

from umlaan.measure import marks
from umlaan.measure.cases import human
from umlaan.measure.compare import Key, Report, kernels
from umlaan.measure.ledger import UNITS, Row
from umlaan.measure.marks import Plot


def throughput(report: Report) -> Plot | None:
    """The newest throughput of each kernel."""
    figure = _history(report, "MB/s")
    words = "The newest figure of each kernel, in the order in which they were first measured."
    return figure and Plot("history", "History over kernels: throughput", words, figure)


def latency(report: Report) -> Plot | None:
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
        colour = colours.setdefault(key.test, marks.COLOURS[len(colours) % len(marks.COLOURS)])
        figure.add_trace(
            go.Scatter(
                x=[_two_lines(label) for label in labels],
                y=[marks.median(row) for row in measured],
                error_y=marks.bars(measured),
                customdata=[[label, *marks.hover(found[label])] for label in labels],
                hovertemplate=f"{name}<br>{marks.HOVER}",
                mode="lines+markers",
                name=name,
                line={"dash": "solid" if key.client < key.server else "dot"},
                marker={"color": colour, "size": 8},
            )
        )
    figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=[_two_lines(x) for x in order]
    )
    figure.update_yaxes(title="MB/s" if unit == "MB/s" else "ms an exchange", **marks.LOG)
    return marks.dressed(figure, 400)


def _two_lines(label: str) -> str:
    return label.replace(" (", "<br>(")


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
