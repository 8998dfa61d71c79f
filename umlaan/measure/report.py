"""One self-contained HTML page of a ledger: summary, comparison, plots, table. No network."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from umlaan.measure import table
from umlaan.measure.compare import Entry, Report, kernels
from umlaan.measure.ledger import Row, utc


class ReportError(Exception):
    """The page cannot be made; the message says what to do."""


def page(report: Report) -> str:
    """The whole page. ReportError where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs  # type: ignore[import-untyped,unused-ignore]

        from umlaan.measure.plots import plots
    except ImportError:
        raise ReportError(
            "the page needs plotly: pip install 'umlaan[report]' (the terminal table does not)"
        ) from None
    environment = Environment(
        loader=PackageLoader("umlaan.measure", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=table.number, spread=table.spread, utc=utc)
    return environment.get_template("page.html.j2").render(
        report=report,
        facts=facts(report),
        two=len(report.sides) == 2,
        plots=[(p, script_json(p.figure.to_json())) for p in plots(report)],
        plotlyjs=Markup(_inline(get_plotlyjs())),
        cells=cells,
        busy=busy(report.rows),
        kernels=kernels(report.rows),
    )


def write(report: Report, path: str | Path) -> None:
    """The page as a file, whole or not at all. OSError if it cannot be written."""
    target = Path(path)
    text = page(report)
    beside = target.with_name(f".{target.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(target)


def script_json(text: str) -> Markup:
    """JSON that may stand inside <script>: no name in it can close the element."""
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _inline(script: str) -> str:
    return re.sub(r"</(script)", r"<\\/\1", script, flags=re.IGNORECASE)


def facts(report: Report) -> list[tuple[str, str]]:
    """What the figures were measured on, a line each; several values where rows differ."""
    rows = report.rows
    ends = [end for row in rows for end in (row.server, row.client)]
    first, last = report.span
    hashes = {end.dvs_sha256[:12] for end in ends if end.dvs_sha256}
    configurations = {e.kernel.config_sha256[:12] for e in ends if e.kernel.config_sha256}
    hosts = {e.kernel.label for e in ends if e.place == "host"}
    lines = [
        ("Lab", _join(row.lab for row in rows)),
        ("UML kernel", ", ".join(kernels(rows))),
        ("Configuration", _join(configurations)),
        ("Host kernel", _join(hosts)),
        (
            "DVS tree",
            ", ".join(filter(None, [_join(r.tree for r in rows if r.tree), _join(hashes)])),
        ),
        ("Transport, MTU", _join(f"{row.way.transport}, {row.way.mtu}" for row in rows)),
        ("Measured", utc(first) if utc(first) == utc(last) else f"{utc(first)} – {utc(last)}"),
        ("Load of the host", _load(rows)),
    ]
    return [(name, text) for name, text in lines if text]


def _join(values: object) -> str:
    return ", ".join(sorted({str(value) for value in values}))  # type: ignore[attr-defined]


def _load(rows: list[Row]) -> str:
    low = min(min(row.load.before, row.load.after) for row in rows)
    high = max(max(row.load.before, row.load.after) for row in rows)
    cpus = _join(row.load.cpus for row in rows)
    return f"{low:.1f} – {high:.1f} on {cpus} CPUs"


def busy(rows: list[Row]) -> int:
    """How many rows began while the host already had more to do than it has CPUs."""
    return sum(row.load.before > row.load.cpus for row in rows)


def cells(entry: Entry) -> list[dict[str, str]]:
    """A row of the page's table: class and text of each side's cells."""
    out = []
    for row in entry.rows:
        if row is None:
            out.append({"kind": "none", "text": "not measured", "title": ""})
        elif row.figures is None:
            out.append({"kind": "failed", "text": "failed", "title": row.reason or ""})
        else:
            text = table.number(row.figures.median)
            out.append({"kind": "ok", "text": text, "title": table.spread(row)})
    return out
