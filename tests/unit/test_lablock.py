"""The lab's lock: one way to ask for it, one message where it is refused."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from umlaan.cli import measure
from umlaan.cli.fault import Fault
from umlaan.plan import lablock


def test_it_waits_for_a_lab_host_that_is_starting() -> None:
    words = lablock.words("lab1", "me")
    assert words[words.index("--lab") + 1] == "lab1" and words[0] == "lock"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("locked", None),
        ("/run/x is held by me pid 3", "another run is at work on n: /run/x is held by me pid 3"),
        ("", "another run is at work on n: no answer"),
        ("no lock: [Errno 13] /run/x", "n: [Errno 13] /run/x; umlaan works as root there"),
    ],
)
def test_an_answer_is_a_message(answer: str, said: str | None) -> None:
    assert lablock.refusal("n", answer) == said


class Session:
    """A lab host whose agent answers as it is told, and notes how it was asked."""

    def __init__(self, answer: str) -> None:
        self.lab = SimpleNamespace(hosts=[SimpleNamespace(name="@local", lab="lab1")])
        self.answer, self.asked = answer, ""

    def agent(self, name: str) -> str:
        return "agent"

    def argv(self, name: str, line: str) -> list[str]:
        self.asked = line
        return ["sh", "-c", f"echo '{self.answer}'; cat >/dev/null"]


def test_measure_asks_as_a_run_does_and_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    wait = subprocess.Popen.wait
    monkeypatch.setattr(
        subprocess.Popen, "wait", lambda self, *a: ended.append(wait(self, *a)) or ended[-1]
    )
    one: Any = Session("locked")
    with measure.locked(one):
        assert one.asked.startswith("exec env agent lock --path /run/umlaan/lab1.lock --lab lab1 ")
    assert ended == [0]
    held: Any = Session("held")
    refused = pytest.raises(Fault, match="another run is at work on @local: held")
    with refused, measure.locked(held):
        pass
    assert ended == [0, 0]
