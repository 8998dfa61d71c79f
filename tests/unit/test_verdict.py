"""The last line of a run, which scripts read."""

from __future__ import annotations

import pytest

from umlaan.plan.verdict import NodeState, Summary, Verdict, exit_code, verdict_of


@pytest.mark.parametrize(
    ("states", "to_do", "failed", "verdict"),
    [
        (["up", "up"], 0, 0, "up"),
        (["up"], 2, 0, "drifted"),
        (["up", "down"], 0, 0, "drifted"),
        (["unreachable"], 0, 0, "drifted"),
        (["down", "down"], 0, 0, "down"),
        (["absent", "absent"], 0, 0, "absent"),
        (["absent", "down"], 0, 0, "down"),
        ([], 0, 0, "absent"),
        (["up"], 1, 1, "failed"),
    ],
)
def test_verdict(states: list[NodeState], to_do: int, failed: int, verdict: Verdict) -> None:
    assert verdict_of(states, to_do=to_do, failed=failed) == verdict


def test_the_line_is_the_interface() -> None:
    line = Summary(changed=3, operations=20, failed=0, seconds=2.345, verdict="up").line()
    assert line == "umlaan: changed=3 operations=20 failed=0 seconds=2.3 verdict=up"


def test_exit_code_says_whether_it_is_what_was_asked() -> None:
    assert exit_code("up", "up", dry=False) == 0
    assert exit_code("drifted", "up", dry=False) == 1
    assert exit_code("absent", "absent", dry=False) == 0
    assert exit_code("absent", "up", dry=True) == 0
    assert exit_code("failed", "up", dry=True) == 1
    assert exit_code("failed", "failed", dry=False) == 1
