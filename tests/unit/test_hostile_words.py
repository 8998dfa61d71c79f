"""A hostile word in every view: it is shown, and neither a terminal, rich nor a page obeys it."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from pyinfra.api import output as pyinfra_output

from tests.unit.test_cli_graph import lab_of, node_of
from tests.unit.test_measure_report import NEW, of, synthetic
from umlaan import echo
from umlaan.agent.visible import Stream, visible, word
from umlaan.agent.visible import shown as shown_stream
from umlaan.cli import app, doctor, plan, show, shown, status
from umlaan.measure import compare, report, table
from umlaan.measure.ledger import Kernel
from umlaan.model.outputs import (
    ChangeOutput,
    DoctorLine,
    DoctorOutput,
    KernelOutput,
    PlanOutput,
    SnapshotOutput,
    StatusOutput,
)
from umlaan.plan import verify as verify_plan
from umlaan.plan.graph import dot
from umlaan.plan.mermaid import mermaid

REPO = Path(__file__).resolve().parents[2]
WORDS = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "csi of eight bits": "\x9b2J",
    "no tag": "[/x]",
    "a tag": "[bold red]",
    "backslash": "[x\\",
    "right to left": "\u202egnp.exe",
    "isolate": "\u2066x",
    "newline": "a\nverdict=up",
    "return": "a\rumlaan: verdict=up",
    "nul": "a\0b",
    "no utf-8": "caf\udce9",
    "markup": '</script><b>"&quot;',
    "long": "x" * 10_000_000,
}
SHORT = {name: text for name, text in WORDS.items() if name != "long"}


def _status(text: str) -> StatusOutput:
    node = node_of(1, range(0))
    node = node.model_copy(
        update={
            "kernel": KernelOutput(path="/k", release=text),
            "root": f"/images/{text}",
            "drift": (text,),
        }
    )
    found = lab_of(1)
    link = found.hosts[0].links[0].model_copy(update={"name": text, "addresses": (text,)})
    host = found.hosts[0].model_copy(update={"links": (link,), "drift": (text,)})
    return found.model_copy(update={"nodes": (node,), "hosts": (host,)})


def _plan(text: str) -> PlanOutput:
    one = ChangeOutput(host=text, operation=text, reason=text)
    figures: dict[str, Any] = {"operations": 1, "changed": 1, "failed": 0, "seconds": 1.0}
    both = {"changes": (one,), "messages": (one,)}
    return PlanOutput(lab="x", dry=True, verdict="drifted", **figures, **both)


def _doctor(text: str) -> DoctorOutput:
    line = DoctorLine(host=text, kind="lack", text=text)
    return DoctorOutput(lab="x", verdict="lacking", machines={text: {text: text}}, lines=(line,))


def _snapshot(text: str) -> SnapshotOutput:
    about: dict[str, Any] = {"node": "node1", "at": "now", "state": "stopped", "how": "copy"}
    return SnapshotOutput(name=text, size_bytes=1, disk_bytes=1, **about)


def _shown_status(text: str) -> None:
    for part in status.rendered(_status(text)):
        show.output().print(part)


def _shown_snapshots(text: str) -> None:
    rows = show.table("a")
    rows.add_row(show.plain(_snapshot(text).name))
    show.output().print(rows)


def _shown_measures(text: str) -> None:
    # The ledger takes no such line.
    text = text.translate({0: " ", 10: " ", 0xDCE9: "e"})
    rows = [row.model_copy(update={"lab": text}) for row in synthetic(Kernel(release=text))[:3]]
    show.output().print(table.table(compare.report([of(rows)])))
    both = [*rows, *synthetic(NEW, day=1)[:3]]
    show.output().print(table.table(compare.report([of(both)], [text, NEW.release])))


def _shown_fault(text: str) -> None:
    app._tell(f"node1: {text}")


VIEWS: dict[str, Callable[[str], None]] = {
    "status": _shown_status,
    "plan": lambda text: plan.show(_plan(text)),
    "doctor": lambda text: doctor.show(_doctor(text)),
    "snapshot": _shown_snapshots,
    "measure": _shown_measures,
    "fault": _shown_fault,
    "hint": lambda text: show.hint(text),
}


@pytest.fixture(autouse=True)
def fresh_consoles() -> None:
    show.output.cache_clear()
    show.errors.cache_clear()


def harmless(text: str) -> bool:
    """Whether a terminal shows all of it: no control characters, no marks of direction."""
    seen = set(text) - {"\n", "\t"}
    return not any(unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") for sign in seen)


@pytest.mark.parametrize("what", WORDS)
@pytest.mark.parametrize("view", VIEWS)
def test_no_view_obeys_it(view: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Whole sentences of umlaan's own go there; a word in them is cut where it comes in.
    text = WORDS[what] if view in ("status", "snapshot") else WORDS[what][:1000]
    VIEWS[view](text)
    said = capsys.readouterr()
    assert harmless(said.out + said.err)
    assert len(said.out + said.err) < 100_000
    if what in ("no tag", "a tag"):
        assert text in re.sub(r"\s*\n\s*", "", said.out + said.err)


@pytest.mark.parametrize("what", SHORT)
def test_json_stays_json_and_plain_ascii(what: str) -> None:
    for model in (_status(SHORT[what]), _plan(SHORT[what]), _doctor(SHORT[what])):
        for indent in (None, 1):
            text = show.as_json(model, indent)
            assert text.isascii() and harmless(text)
            assert json.loads(text) == model.model_dump(mode="json")


@pytest.mark.parametrize("what", SHORT)
def test_pictures_are_no_markup_of_its(what: str) -> None:
    found = _status(SHORT[what])
    for text in (dot(found), mermaid(found)):
        assert harmless(text)
    drawing = dot(found)
    assert "<b>" not in drawing and "</script>" not in mermaid(found)
    # A Graphviz that is there must be able to read it: labels are XML.
    from umlaan.cli.graph import drawn

    assert drawn(found, ".svg").startswith(b"<?xml")


@pytest.mark.parametrize("what", SHORT)
def test_the_page_is_no_markup_of_its(what: str) -> None:
    text = SHORT[what].translate({0: " ", 10: " ", 0xDCE9: "e"})
    rows = [row.model_copy(update={"lab": text}) for row in synthetic(Kernel(release=text))[:4]]
    page = report.page(compare.report([of(rows)]))
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "<b>" not in markup and "<script" not in markup
    assert page.count("<script") == page.count("</script")


@pytest.mark.parametrize("what", WORDS)
def test_a_verified_node_s_table(what: str) -> None:
    text = WORDS[what]
    rows = [{"what": "hostname", "host": "node1", "guest": text, "ok": False, "detail": text}]
    told = [verify_plan.table("node1", rows), *verify_plan.failures("node1", rows)]
    assert all(harmless(line) and len(line) < 10_000 for line in told)
    assert len(told[0].splitlines()) == 3 and len(told) == 2


@pytest.mark.parametrize("what", SHORT)
def test_what_pyinfra_prints_and_logs(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pyinfra_output, "_echo", lambda text, **_: said.append(text))
    echo.make_visible()
    echo.make_visible()
    pyinfra_output.echo(f"[node1] {click.style(SHORT[what], 'red')}", err=True)
    assert len(said) == 1
    assert harmless(said[0].removeprefix("[node1] \x1b[31m").removesuffix("\x1b[0m"))
    record = logging.LogRecord(
        "x", logging.ERROR, "x", 1, "said: %s %s %i", (SHORT[what], OSError(SHORT[what]), 7), None
    )
    assert echo.Shown().filter(record)
    assert harmless(record.getMessage()) and record.getMessage().endswith(" 7")


def test_a_coloured_line_of_a_guest_s_hides_nothing() -> None:
    assert echo.shown("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m"
    assert echo.shown("\x1b[8mhidden\x1b[2J") == "\\x1b[8mhidden\\x1b[2J"


def test_a_line_without_an_end_is_cut() -> None:
    """Thirty megabytes of zeros, each to be made visible, kept a run busy for minutes."""
    told = echo.shown("\0" * (32 << 20))
    assert len(told) < 500_000 and told.endswith("… and 33454432 more characters")


@pytest.mark.parametrize("what", SHORT)
def test_the_agent_s_own_lines(what: str) -> None:
    """mconsole's answer, the end of a log: they go to the terminal as the agent prints them."""
    text = SHORT[what].encode(errors="surrogateescape")
    script = (
        "import sys; from umlaan.agent.visible import shown; "
        "sys.stdout, sys.stderr = shown(sys.stdout), shown(sys.stderr); "
        "text = sys.stdin.buffer.read().decode(errors='surrogateescape'); "
        "print(text); print(text, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], input=text, capture_output=True, cwd=REPO
    )
    assert done.stdout == done.stderr and harmless(done.stdout.decode())


def test_what_is_shown_is_not_kept_back() -> None:
    """A question or a waiting word must be seen while the agent waits."""
    for old in (sys.stderr, io.TextIOWrapper(io.BytesIO(), line_buffering=True)):
        raw = io.BytesIO()
        flags = {name: getattr(old, name, True) for name in ("line_buffering", "write_through")}
        out = shown_stream(io.TextIOWrapper(raw, **flags))
        print("waits for another", file=out)
        assert raw.getvalue() == b"waits for another\n"


def _piped(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.BytesIO:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    monkeypatch.setattr(out, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", out)
    return raw


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_a_stream_may_be_cut_anywhere(pieces: int) -> None:
    data = ("é\r\n".encode() + b"\xff\x1b]52;" + "\u202e€".encode() + b"\rend\r\n\xe2\x82") * 50
    stream = Stream()
    parts = [data[n : n + pieces] for n in range(0, len(data), pieces)]
    text = "".join(stream.take(part) for part in parts) + stream.take(b"", final=True)
    assert harmless(text) and text == visible(data.decode(errors="backslashreplace"))


def test_logs_are_shown_wherever_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = _piped(monkeypatch, terminal=False)
    words = ["printf", "a\\033]52;c;eA==\\007\\r\\nb\\377\\n"]
    assert shown.show(words, always=True) == 0
    assert raw.getvalue() == b"a\\x1b]52;c;eA==\\x07\nb\\xff\n"


def test_a_command_s_output_on_a_terminal_and_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = _piped(monkeypatch, terminal=True)
    assert shown.show(["sh", "-c", "printf '\\033[2J'; exit 7"]) == 7
    assert raw.getvalue() == b"\\x1b[2J"
    into = "from umlaan.cli import shown; shown.show(['printf', '\\\\033[2J\\\\377'])"
    done = subprocess.run([sys.executable, "-c", into], capture_output=True, cwd=REPO)
    assert done.stdout == b"\x1b[2J\xff"


@pytest.mark.parametrize("terminal", [True, False])
def test_all_nodes_lines_are_prefixed_and_never_kept_whole(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    raw = _piped(monkeypatch, terminal=terminal)
    sink = shown.Prefixed(sys.stdout, "node1 | ")
    shown.run(["sh", "-c", "printf 'a\\033\\nb'; head -c 1000000 /dev/zero"], (sink, None))
    lines = raw.getvalue().split(b"\n")
    assert lines[0] == (b"node1 | a\\x1b" if terminal else b"node1 | a\x1b")
    assert all(line.startswith(b"node1 | ") for line in lines[:-1])
    longest = max(map(len, lines))
    assert longest < (1 << 20) and len(lines) > 4


def test_who_follows_a_log_ends_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\n")
    follow = f"from umlaan.cli import shown; shown.show(['tail', '-F', {str(log)!r}], always=True)"
    with subprocess.Popen(
        [sys.executable, "-c", follow], stdout=subprocess.PIPE, text=True, cwd=REPO
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "one\n"
            with log.open("a") as file:
                file.write("two\x1b[2J\n")
            assert process.stdout.readline() == "two\\x1b[2J\n"
        finally:
            process.terminate()
        # Its tail holds the pipe as long as it lives.
        assert process.stdout.read() == ""


def test_a_word_is_one_line_and_not_endless() -> None:
    assert word("a\nb\tc\r\nd") == "a\\nb\\tc\\nd"
    assert len(word("\x1b" * 10_000_000)) == 301
    assert visible("é€ 日本 ok\n\t") == "é€ 日本 ok\n\t"
