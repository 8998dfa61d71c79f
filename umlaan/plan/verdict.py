"""The last line of every run: what changed, and what the lab is now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["up", "down", "drifted", "failed", "absent"]
NodeState = Literal["absent", "down", "booting", "up", "unreachable", "failed"]


@dataclass(frozen=True)
class Summary:
    """What the last line says. changed and operations count operations over all hosts."""

    changed: int
    operations: int
    failed: int
    seconds: float
    verdict: Verdict

    def line(self) -> str:
        """The line for scripts; its form is part of the interface."""
        return (
            f"umlaan: changed={self.changed} operations={self.operations} failed={self.failed} "
            f"seconds={self.seconds:.1f} verdict={self.verdict}"
        )


def verdict_of(states: list[NodeState], *, to_do: int, failed: int) -> Verdict:
    """What the lab is: from the nodes' states, failures, and how much is still to be done."""
    if failed:
        return "failed"
    if not states or all(state == "absent" for state in states):
        return "absent"
    if all(state == "up" for state in states):
        return "drifted" if to_do else "up"
    if all(state in ("down", "absent") for state in states):
        return "down"
    return "drifted"


def exit_code(verdict: Verdict, asked: Verdict, *, dry: bool) -> int:
    """0 only where the verdict is what was asked for; a plan that could be made is one."""
    if verdict == "failed":
        return 1
    return 0 if dry or verdict == asked else 1
