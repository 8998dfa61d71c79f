"""The report page in a real browser: every plot drawn, nothing in the console, nothing cut off."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.test_measure_report import NEW, OLD, failed, of, synthetic
from umlaan.measure import compare, report

BROWSER = shutil.which("chromium") or "chromium-browser"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=8000",
]
# What a page says about itself once it is drawn, written where --dump-dom shows it.
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
const plots = [...document.querySelectorAll(".js-plotly-plot")];
document.title = JSON.stringify({width: innerWidth, page: document.documentElement.scrollWidth,
plots: plots.map(p => [p.id, p.querySelectorAll(".trace").length, p.clientWidth])});
}, 1500));</script>"""

pytestmark = pytest.mark.timeout(180)


def opened(path: Path, width: int) -> tuple[dict[str, object], list[str]]:
    """(what the page says of itself, its lines in the console)."""
    import html
    import json

    done = subprocess.run(
        [
            BROWSER,
            *FLAGS,
            f"--user-data-dir={path.parent}/profile-{width}",
            f"--window-size={width},1200",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(title.group(1))), console


def probed(path: Path, text: str) -> Path:
    path.write_text(text.replace("</body>", f"{PROBE}</body>"))
    return path


@pytest.mark.parametrize("width", [1280, 500])  # headless windows are 500 wide at least
def test_the_page_is_drawn_whole_and_quietly(tmp_path: Path, width: int) -> None:
    rows = [*synthetic(OLD), *synthetic(NEW, factor=2, day=1)]
    bad = failed(rows[-1], "short: 3 of 5 bytes", minutes=9999)
    made = compare.report([of(rows, [bad])])
    seen, console = opened(probed(tmp_path / "page.html", report.page(made)), width)
    assert console == []
    assert seen["width"] == width
    assert seen["page"] <= width
    plots = {name: (traces, wide) for name, traces, wide in seen["plots"]}
    assert list(plots) == [
        "plot-throughput",
        "plot-files",
        "plot-latency",
        "plot-history",
        "plot-history-latency",
    ]
    for name, (traces, wide) in plots.items():
        assert traces >= 2, name
        assert 0.8 * width < wide <= width, name


def test_a_comparison_is_drawn_quietly(tmp_path: Path) -> None:
    rows = [*synthetic(OLD), *synthetic(NEW, factor=2, day=1)]
    made = compare.report([of(rows)], ("4.9", "6.1"))
    seen, console = opened(probed(tmp_path / "page.html", report.page(made)), 1280)
    assert console == []
    assert len(seen["plots"]) == 5


def test_an_error_in_the_page_would_be_seen(tmp_path: Path) -> None:
    text = report.page(compare.report([of(synthetic(NEW))]))
    broken = text.replace("Plotly.newPlot(", "Plotly.newPlott(", 1)
    _, console = opened(probed(tmp_path / "page.html", broken), 1280)
    assert any("newPlott is not a function" in line for line in console)
