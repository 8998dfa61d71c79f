"""What the report's plots share: colours, error bars, hover texts, reference lines, the frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

from umlaan.measure.ledger import UNITS, Row
from umlaan.measure.reference import Reference

# Legible on white and on near-black; apart for most colour-blind readers.
COLOURS = ("#2f7ed8", "#e8710a", "#17a673", "#a45ee5", "#d6336c", "#b08900", "#0b9aa8")
REFERENCE_COLOUR = "#8a8f98"
REFERENCE_DASH = {"copy": "dash", "message": "dash", "ping": "dot"}
SYMBOLS = ("circle", "square-open")
MOST_SERIES = 6
LOG: dict[str, Any] = {"type": "log", "dtick": "D2", "tickformat": "~g"}
HOVER = "%{customdata[0]}: %{customdata[1]}<br>%{customdata[2]}<extra></extra>"


@dataclass(frozen=True)
class Plot:
    """A figure with its heading and the sentence that says how to read it."""

    id: str
    title: str
    caption: str
    figure: go.Figure


def median(row: Row) -> float:
    """Of a row that has figures."""
    return row.figures.median if row.figures else 0.0


def bars(rows: Iterable[Row]) -> dict[str, Any]:
    """Error bars from the slowest repeat to the fastest."""
    figures = [row.figures for row in rows if row.figures]
    return {
        "type": "data",
        "symmetric": False,
        "array": [f.max - f.median for f in figures],
        "arrayminus": [f.median - f.min for f in figures],
        "thickness": 1.2,
        "width": 4,
    }


def hover(row: Row) -> list[str]:
    """The two lines under a mark's name."""
    figures = row.figures
    if figures is None:
        return ["", ""]
    return [
        f"{figures.median:.4g} {row.unit}",
        f"{figures.min:.4g} – {figures.max:.4g}, {len(figures.values)} repeats, {row.kernel}",
    ]


def line(figure: go.Figure, known: Reference) -> None:
    """A published figure as a line across the plot, named in the legend."""
    line = {"color": REFERENCE_COLOUR, "width": 1.5, "dash": REFERENCE_DASH[known.test]}
    throughput = UNITS[known.test] == "MB/s"
    (figure.add_hline if throughput else figure.add_vline)(known.value, line=line)
    unit = "MB/s" if throughput else "ms"
    name = f"{known.source}: {known.test} {known.value:.3g} {unit}"
    # Lines are shapes, and shapes have no legend of their own.
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", line=line, name=name))


def dropped(series: int) -> str:
    """What a caption says of series that found no place."""
    extra = series - MOST_SERIES
    return f" The first {MOST_SERIES} of {series}; the table has all." if extra > 0 else ""


def dressed(figure: go.Figure, height: int) -> go.Figure:
    """The frame of every plot, height in pixels; the page gives the width."""
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
