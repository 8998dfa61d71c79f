"""The report: what it selects, compares and draws. All figures in here are made up."""

import json
import random
import re
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest
from rich.console import Console

from umlaan.cli.app import code_of
from umlaan.measure import compare, ledger, reference, report, table
from umlaan.measure.cases import Place, plan
from umlaan.measure.ledger import (
    UNITS,
    End,
    Figures,
    Kernel,
    LedgerError,
    Load,
    Reading,
    Row,
    Way,
)
from umlaan.model.measure import Measure

START = datetime(2030, 1, 1, tzinfo=UTC)
OLD = Kernel(release="4.9.88-DVKIPC", sha256="1" * 64, config_sha256="2" * 64)
NEW = Kernel(release="6.1.140", sha256="3" * 64, config_sha256="4" * 64)


def synthetic(kernel, nodes=2, factor=1.0, seed=1, day=0, repeats=5, run="synthetic"):
    """Rows of a whole run, clearly made up: every figure follows from a fixed seed."""
    source = random.Random(seed)
    places = [Place(0, "host"), *(Place(n, "uml") for n in range(1, nodes))]
    rows = []
    for index, case in enumerate(plan(places, Measure(repeats=repeats)).cases):
        p = case.parameters
        base = {"ping": 0.25, "message": 8.0}.get(case.test)
        if base is None:
            base = 2.0 + (p.size or p.buffer or 1 << 19) / 60_000
        if case.server.number == 0:
            base *= 0.8
        base *= factor if UNITS[case.test] == "MB/s" else 1 / factor
        values = [base * source.lognormvariate(0, 0.06) for _ in range(repeats)]
        samples = [base * source.lognormvariate(0, 0.3) for _ in range(50)]
        rows.append(
            Row(
                time=START + timedelta(days=day, minutes=index),
                run=run,
                lab="made-up",
                test=case.test,
                tool="none",
                server=end(case.server, kernel),
                client=end(case.client, kernel),
                parameters=p,
                way=Way(transport="tuntap", mtu=1500),
                load=Load(host="@local", cpus=2, before=0.4, after=1.1),
                warmup=1,
                repeats=repeats,
                unit=UNITS[case.test],
                verdict="ok",
                figures=Figures.of(values),
                samples=tuple(samples) if case.test == "ping" else (),
                umlaan="0",
            )
        )
    return rows


def end(place, kernel):
    own = Kernel(release="6.12.0-host") if place.place == "host" else kernel
    return End(
        node=place.number, name=place.name, place=place.place, kernel=own, dvs_sha256="d" * 64
    )


def failed(row, reason, minutes=1):
    """The same measurement later, failed."""
    changes = {"verdict": "failed", "figures": None, "samples": (), "reason": reason}
    return row.model_copy(update={**changes, "time": row.time + timedelta(minutes=minutes)})


def of(*row_lists):
    return Reading("made-up.jsonl", [row for rows in row_lists for row in rows])


def terminal(made):
    console = Console(width=200, file=None, record=True, force_terminal=False)
    with console.capture() as got:
        console.print(table.table(made))
    return got.get()


def test_the_newest_row_of_each_measurement_is_shown_even_if_it_failed():
    rows = synthetic(NEW)
    later = failed(rows[0], "lost: 3 of 50 pings answered", minutes=600)
    made = compare.report([of([later], rows)])
    assert len(made.entries) == len(rows)
    assert made.failed == [later]
    assert table.reasons(made) == ["ping 56 B × 50, node1 → node0: lost: 3 of 50 pings answered"]
    assert "1 failed" in terminal(made)


def test_two_kernels_of_one_ledger_side_by_side():
    made = compare.report(
        [of(synthetic(OLD), synthetic(NEW, factor=3, seed=2, day=1))], ("4.9", "6.1")
    )
    assert [side.label for side in made.sides] == ["4.9.88-DVKIPC (11111111)", "6.1.140 (33333333)"]
    words = {entry.difference.words for entry in made.entries}
    assert words == {"faster"}
    message = next(e for e in made.entries if e.key.test == "message")
    assert message.difference.ratio == pytest.approx(1 / 3, rel=0.15)
    copy = next(e for e in made.entries if e.key.test == "copy")
    assert copy.difference.ratio == pytest.approx(3, rel=0.15)
    assert "faster" in terminal(made)


def test_the_same_system_twice_is_within_the_spread():
    one, two = Reading("a/l.jsonl", synthetic(NEW)), Reading("b/l.jsonl", synthetic(NEW, seed=9))
    made = compare.report([one, two])
    assert [side.label for side in made.sides] == ["a/l.jsonl", "b/l.jsonl"]
    outside = [entry for entry in made.entries if entry.difference.outside]
    assert len(outside) <= 2
    swapped = compare.report([two, one])
    for entry, other in zip(made.entries, swapped.entries, strict=True):
        assert entry.difference.ratio * other.difference.ratio == pytest.approx(1)


def test_what_one_side_lacks_or_failed_has_no_ratio():
    rows = synthetic(NEW)
    made = compare.report([Reading("a", rows), Reading("b", [failed(rows[1], "died"), *rows[2:]])])
    lacking = [entry for entry in made.entries if None in entry.rows]
    broken = [entry for entry in made.entries if entry.rows[1] in made.failed]
    assert [entry.rows[0] for entry in lacking + broken] == rows[:2]
    assert all(entry.difference is None for entry in lacking + broken)
    shown = terminal(made)
    assert "not measured" in shown
    assert "failed" in shown


def test_too_few_repeats_are_said_not_judged():
    made = compare.report(
        [Reading("a", synthetic(NEW, repeats=2)), Reading("b", synthetic(OLD, repeats=2))]
    )
    assert {e.difference.words for e in made.entries} == {"too few repeats"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("5.10", "6.1"), "'5.10': no kernel measured here; the ledger has: 4.9.88-DVKIPC"),
        ((".", "6.1"), "'.': more than one kernel"),
    ],
)
def test_a_kernel_that_is_not_one_is_said(words, message):
    with pytest.raises(LedgerError, match=re.escape(message)):
        compare.report([of(synthetic(OLD), synthetic(NEW, day=1))], words)


def test_an_empty_ledger_is_said():
    with pytest.raises(LedgerError, match="no results in it"):
        compare.report([Reading("empty.jsonl")])


def test_published_figures_stand_only_beside_what_they_measured():
    rows = {compare.Key.of(row): row for row in synthetic(NEW)}
    found = {
        (key.test, key.parameters.buffer or key.parameters.size): reference.reference(row)
        for key, row in rows.items()
    }
    assert found["m3ftp-get", 65536].value == pytest.approx(0.674578360)
    assert found["m3ftp-get", 1 << 20].value == pytest.approx(1.682237536)
    assert found["copy", 65536].value == pytest.approx(2.045810997)
    assert found["copy", 1024] is None
    assert found["ping", 56].value == 0.196


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")]
)
def test_numbers_have_three_digits_that_matter(value, text):
    assert table.number(value) == text


def plots_in(html):
    found = re.findall(r'newPlot\("plot-([\w-]+)"', html)
    data = [json.loads(text) for text in re.findall(r"const f = (\{.*\});\n", html)]
    assert len(found) == len(data)
    return dict(zip(found, data, strict=True))


def test_the_page_has_each_plot_with_the_ledgers_values():
    rows = [*synthetic(OLD), *synthetic(NEW, factor=2, day=1)]
    html = report.page(compare.report([of(rows)]))
    drawn = plots_in(html)
    assert list(drawn) == ["throughput", "files", "latency", "history", "history-latency"]
    line = next(t for t in drawn["throughput"]["data"] if t["name"] == "node1 → node0")
    newest = [r for r in rows[len(rows) // 2 :] if r.test == "copy" and r.client.name == "node1"]
    assert line["y"] == [row.figures.median for row in newest]
    assert line["x"] == [row.parameters.size for row in newest]
    assert {t["name"] for t in drawn["history"]["data"]} >= {"copy 64 KiB, node1 → node0"}
    boxes = [t for t in drawn["latency"]["data"] if t["type"] == "box"]
    assert len(boxes[0]["x"]) == 50


def test_the_page_asks_nothing_of_the_network():
    html = report.page(compare.report([of(synthetic(NEW))]))
    markup = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "http:" not in markup
    assert "https:" not in markup
    assert "src=" not in markup.replace("script-src", "")
    assert "default-src 'none'" in markup


def test_names_in_a_ledger_cannot_become_markup():
    evil = "</script><script>alert(1)</script><b>&"
    rows = [row.model_copy(update={"lab": evil}) for row in synthetic(Kernel(release=evil))]
    rows += synthetic(NEW, day=1)
    rows.append(failed(rows[0], evil, minutes=100_000))
    html = report.page(compare.report([of(rows)]))
    assert "<script>alert" not in html
    assert "<b>" not in html.split("</style>")[1].split("</script>", 1)[1]


def test_a_busy_host_is_said():
    rows = synthetic(NEW)
    loaded = Load(host="@local", cpus=2, before=5.0, after=5.0)
    rows[0] = rows[0].model_copy(update={"load": loaded})
    html = report.page(compare.report([of(rows)]))
    assert f"1 of {len(rows)} results began while the host had more to run" in html
    assert "began while" not in report.page(compare.report([of(synthetic(NEW))]))


def test_the_page_is_written_whole(tmp_path):
    path = tmp_path / "lab.html"
    report.write(compare.report([of(synthetic(NEW))]), path)
    assert path.read_text().endswith("</html>\n")
    assert [p.name for p in tmp_path.iterdir()] == ["lab.html"]


def test_a_ledger_on_disk_becomes_a_page(tmp_path):
    path = tmp_path / "ledger.jsonl"
    for row in synthetic(NEW)[:4]:
        ledger.append(path, row)
    path.write_bytes(path.read_bytes() + b'{"schema')
    html = report.page(compare.report([ledger.read(path)]))
    assert "ledger.jsonl:5: not a whole line (torn write), left out" in html


def test_figures_of_the_sample_tree_are_never_shown_as_the_dvss():
    rows = synthetic(NEW)
    sample = [row.model_copy(update={"tree": "examples/sample-dvs"}) for row in rows]
    real = [row.model_copy(update={"tree": "/usr/src/dvs"}) for row in rows]
    assert "nothing about the DVS" in report.page(compare.report([of(sample)]))
    assert "nothing about the DVS" not in report.page(compare.report([of(real)]))


@pytest.fixture
def on_disk(tmp_path):
    path = tmp_path / "ledger.jsonl"
    for row in [*synthetic(OLD)[:4], *synthetic(NEW, day=1)[:4]]:
        ledger.append(path, row)
    return path


def test_the_verb_prints_a_table_and_writes_the_page(on_disk, capsys):
    page = on_disk.with_name("lab.html")
    assert code_of(["report", str(on_disk), "-o", str(page)]) == 0
    shown = capsys.readouterr()
    assert "node1 → node0" in shown.out
    assert f"written: {page}" in shown.err
    assert "Plotly.newPlot" in page.read_text()


def test_the_verb_prints_json_for_scripts(on_disk, capsys):
    words = ["report", str(on_disk), "--kernel", "4.9", "--kernel", "6.1", "--json"]
    assert code_of(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["sides"] == ["4.9.88-DVKIPC (11111111)", "6.1.140 (33333333)"]
    assert len(shown["entries"]) == 4
    for entry in shown["entries"]:
        assert entry["ratio"] > 0
        for row in entry["rows"]:
            jsonschema.validate(row, ledger.schema())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none.jsonl"], 1, "none.jsonl: no such ledger"),
        (["LEDGER", "--kernel", "6.1"], 64, "--kernel is given twice"),
        (["LEDGER", "--kernel", "6.1", "--kernel", "7"], 1, "'7': no kernel measured here"),
        (["LEDGER", "-o", "/proc/none/x.html"], 1, "/proc/none/.x.html.new: No such file"),
        (["FOLDER"], 1, "Is a directory"),
    ],
)
def test_the_verb_says_what_it_cannot_do(on_disk, capsys, words, code, message):
    words = [str(on_disk) if word == "LEDGER" else word for word in words]
    words = [str(on_disk.parent) if word == "FOLDER" else word for word in words]
    assert code_of(["report", *words]) == code
    assert message in capsys.readouterr().err
