"""The ledger: what a row may say, appending from several processes, and what a reader survives."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from umlaan.measure import ledger, stats
from umlaan.measure.ledger import End, Figures, Kernel, LedgerError, Load, Parameters, Row, Way

KERNEL = Kernel(release="6.1.99-test", sha256="a" * 64, config_sha256="c" * 64)
HOST = End(node=0, name="node0", place="host", kernel=Kernel(release="6.12.0-test"))
GUEST = End(node=1, name="node1", place="uml", kernel=KERNEL, dvs_sha256="d" * 64)


def row(**changes):
    values = {
        "time": datetime(2030, 1, 1, tzinfo=UTC),
        "run": "synthetic",
        "lab": "test",
        "test": "copy",
        "tool": "loop_copy_server, loop_copy_client",
        "server": HOST,
        "client": GUEST,
        "parameters": Parameters(size=65536, count=100, children=1),
        "way": Way(transport="tuntap", mtu=1500),
        "load": Load(host="@local", cpus=2, before=0.5, after=0.7),
        "warmup": 1,
        "repeats": 3,
        "unit": "MB/s",
        "verdict": "ok",
        "figures": Figures.of([2.0, 2.5, 2.25]),
        "umlaan": "0",
    }
    return Row.model_validate({**values, **changes})


def test_a_row_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "deep" / "ledger.jsonl"
    first, second = row(), row(verdict="failed", figures=None, reason="short: 3 of 5 bytes")
    ledger.append(path, first)
    ledger.append(path, second)
    assert ledger.read(path).rows == [first, second]
    lines = path.read_text().splitlines()
    assert [json.loads(line)["schema_version"] for line in lines] == [1, 1]
    assert "null" not in lines[0]


def test_figures_follow_from_the_values():
    figures = Figures.of([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (figures.median, figures.min, figures.max) == (3.0, 1.0, 5.0)
    assert (figures.iqr, figures.mad) == (2.0, 1.0)
    with pytest.raises(ValidationError, match="does not follow"):
        Figures(values=(1.0, 2.0), median=9.0, min=1.0, max=2.0, iqr=0.5, mad=0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_positive_number_is_no_figure(value):
    with pytest.raises(ValueError, match="no figure"):
        Figures.of([1.0, value])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "failed", "reason": "died"}, "no figures"),
        ({"verdict": "failed", "figures": None}, "has a reason"),
        ({"figures": None}, "has figures"),
        ({"reason": "slow"}, "no reason"),
        ({"repeats": 4}, "for each repeat"),
        ({"unit": "ms/exchange"}, "measured in MB/s"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        row(**changes)


def test_a_torn_last_line_is_left_out_and_said_and_not_joined(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, row())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:60])
    reading = ledger.read(path)
    assert len(reading.rows) == 1
    assert "ledger.jsonl:2: not a whole line" in reading.left_out[0]
    ledger.append(path, row(run="after the crash"))
    reading = ledger.read(path)
    assert [r.run for r in reading.rows] == ["synthetic", "after the crash"]
    assert len(reading.left_out) == 1


def test_a_line_torn_inside_a_character_is_left_out(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, row(tool="größer"))
    data = path.read_bytes()
    path.write_bytes(data + data[: data.index("ö".encode()) + 1])
    reading = ledger.read(path)
    assert (len(reading.rows), len(reading.left_out)) == (1, 1)


def test_newer_fields_are_taken_and_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    value = row().model_dump(mode="json", exclude_none=True)
    value["colour"] = "new"
    value["server"]["temperature"] = 40
    path.write_text(json.dumps(value) + "\n")
    assert ledger.read(path).rows == [row()]
    value["schema_version"] = 2
    path.write_text(json.dumps(value) + "\n")
    with pytest.raises(LedgerError, match=r"ledger.jsonl:1: schema 2; this umlaan reads up to 1"):
        ledger.read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [("[1]", "schema_version is missing"), ('{"schema_version": 1}', "time: Field required")],
)
def test_what_is_no_row_is_named_with_its_line(tmp_path, line, message):
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, row())
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    with pytest.raises(LedgerError, match=rf"ledger.jsonl:2: .*{message}"):
        ledger.read(path)


def test_a_missing_ledger_says_what_writes_one(tmp_path):
    with pytest.raises(LedgerError, match="no such ledger; `umlaan measure`"):
        ledger.read(tmp_path / "none")


_WRITER = """
import sys
from umlaan.measure import ledger
row = ledger.read(sys.argv[1]).rows[0].model_copy(update={"run": sys.argv[2]})
for _ in range(25):
    ledger.append(sys.argv[1], row)
"""


def test_writers_wait_for_each_other(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, row())
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), f"run{number}"])
        for number in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    reading = ledger.read(path)
    assert reading.left_out == []
    assert {r.run for r in reading.rows[1:]} == {"run0", "run1", "run2", "run3"}
    assert len(reading.rows) == 101


def test_a_row_is_named_by_the_kernels_of_its_uml_nodes():
    assert row().kernel == "6.1.99-test (aaaaaaaa)"
    other = End(node=2, name="node2", place="uml", kernel=Kernel(release="4.9.88"))
    assert row(server=other).kernel == "4.9.88 / 6.1.99-test (aaaaaaaa)"


def test_the_schema_describes_every_row():
    import jsonschema

    value = json.loads(row().model_dump_json(exclude_none=True))
    jsonschema.validate(value, ledger.schema())


@pytest.mark.parametrize(
    ("ours", "theirs", "outside"),
    [
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], True),
        ([1, 2, 3, 4, 5], [4, 7, 8, 9, 10], False),
        ([6, 7, 8], [1, 2, 3], True),
        ([1, 1, 1], [1, 1, 1], False),
        ([1, 2], [8, 9, 10], None),
    ],
)
def test_whether_a_difference_is_outside_the_spread(ours, theirs, outside):
    assert stats.outside_spread(ours, theirs) is outside


def test_equal_systems_rarely_look_different():
    import random

    source = random.Random(4)
    draws = [[source.gauss(10, 1) for _ in range(10)] for _ in range(4000)]
    wrong = sum(stats.outside_spread(d[:5], d[5:]) for d in draws)
    assert 10 < wrong < 90  # about 1 in 100, as the docstring says
