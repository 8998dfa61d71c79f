"""The one way to wait: for a condition, as long as something moves.

A look says what it saw; what was not seen before in this wait is progress: a list that shrinks, a
state, bytes of a console, processor time. A wait ends when nothing has moved for its patience, and
not before it has looked a few times since: a look is as starved as what it waits for. What moves
for ever, as a guest may pretend, is given up at a cap, many times the patience.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from typing import Any, Protocol

# A wait for what moves all the time is given up after so many times its patience.
CAP = 10
# So many looks are made after the last one that saw something new.
LOOKS = 5
# A line for the user comes so often, in seconds.
EVERY_S = 3.0
FEW = 3


class Clock(Protocol):
    """What a wait needs of the module time."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def sleep(self, seconds: float, /) -> None:
        """Let time pass."""


class Wait:
    """One wait. ``while not done: if not wait.goes_on(seen): give up; wait.pause()``."""

    def __init__(
        self,
        patience: float,
        cap: float | None = None,
        *,
        looks: int = LOOKS,
        clock: Clock = time,
    ) -> None:
        self.patience, self.clock = patience, clock
        self.cap = CAP * patience if cap is None else cap
        # Who has no patience looks once.
        self.looks = looks if patience > 0 else 0
        self.begun = self.moved = self.shown = self.looking = clock.monotonic()
        self.known: set[int] = set()
        self.still = 0
        self.slept = 0.0

    def goes_on(self, seen: Hashable) -> bool:
        """Take what a look saw; False once it is time to give up."""
        now = self.clock.monotonic()
        key = hash(seen)
        if key not in self.known:
            self.known.add(key)
            self.moved, self.still = now, 0
        self.still += 1
        if now - self.begun >= self.cap:
            return False
        return now - self.moved < self.patience or self.still <= self.looks

    def pause(self, least: float = 0.05, most: float = 1.0) -> None:
        """Sleep a little, longer each time, and no less than the look took: it has its price."""
        took = self.clock.monotonic() - self.looking
        self.slept = min(most, max(least, self.slept * 1.5))
        self.clock.sleep(max(self.slept, min(took, 5 * most)))
        self.looking = self.clock.monotonic()

    def seconds(self) -> float:
        """How long it has waited."""
        return self.clock.monotonic() - self.begun

    def quiet(self) -> float:
        """Seconds since something moved."""
        return self.clock.monotonic() - self.moved

    def due(self) -> bool:
        """Whether a line for the user is due; it is shown then."""
        now = self.clock.monotonic()
        if now - self.shown < EVERY_S:
            return False
        self.shown = now
        return True

    def vain(self) -> str:
        """How it waited, for the message of who gives up."""
        now = self.clock.monotonic()
        waited = f"waited {now - self.begun:.0f} s in vain"
        quiet = now - self.moved
        if now - self.begun >= self.cap and quiet < self.patience:
            return f"{waited}, though something moved until the end"
        return f"{waited}, the last {quiet:.0f} s without progress"


def summary(lines: Iterable[str], few: int = FEW) -> list[str]:
    """The first few lines and how many more there are; all where one more would fit as well."""
    rows = list(lines)
    if len(rows) <= few + 1:
        return rows
    return [*rows[:few], f"and {len(rows) - few} more"]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of its children that ended; 0 where there is none."""
    import os

    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return 0.0
    fields: list[Any] = text[text.rfind(")") + 2 :].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def of_processor(pid: int, part: float) -> int:
    """A measure of progress: how many times part (seconds) of the processor a process has used."""
    return int(cpu_seconds(pid) / part)
