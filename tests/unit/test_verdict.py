"""The last line of a run, which scripts read."""

from __future__ import annotations

import pytest

from umlaan.plan.verdict import NodeState, Summary, Verdict, exit_code, verdict_of


@pytest.mark.parametrize(
    ("states", "changed", "failed", "dry", "verdict"),
    [
        (["up", "up"], 3, 0, False, "up"),
        (["up"], 0, 0, True, "up"),
        (["up"], 2, 0, True, "drifted"),
        (["up", "down"], 0, 0, False, "drifted"),
        (["unreachable"], 0, 0, False, "drifted"),
        (["down", "down"], 0, 0, False, "down"),
        (["absent", "absent"], 0, 0, False, "absent"),
        (["absent", "down"], 0, 0, True, "down"),
        ([], 0, 0, False, "absent"),
        (["up"], 1, 1, False, "failed"),
    ],
)
def test_verdict(
    states: list[NodeState], changed: int, failed: int, dry: bool, verdict: Verdict
) -> None:
    assert verdict_of(states, changed=changed, failed=failed, dry=dry) == verdict


def test_the_line_is_the_interface() -> None:
    line = Summary(changed=3, operations=20, failed=0, seconds=2.345, verdict="up").line()
    assert line == "umlaan: changed=3 operations=20 failed=0 seconds=2.3 verdict=up"


def test_exit_code_says_whether_it_is_what_was_asked() -> None:
    assert exit_code("up", "up", dry=False) == 0
    assert exit_code("drifted", "up", dry=False) == 1
    assert exit_code("absent", "absent", dry=False) == 0
    assert exit_code("absent", "up", dry=True) == 0
    assert exit_code("failed", "up", dry=True) == 1
