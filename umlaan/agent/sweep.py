"""What a dead UML left behind: helper threads and guest processes that hold memory and root."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from umlaan.agent import node
from umlaan.agent.patience import Wait


class Unkillable(Exception):
    """Leftovers that SIGKILL does not end; the message names them."""


def clear(order: dict[str, Any], wait: float = 5.0) -> int:
    """Kill what an earlier UML of this very node left behind; how many. Unkillable if it stays."""
    waiting = Wait(wait)
    killed: set[int] = set()
    while left := node.members(order):
        for one in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
            killed.add(one.pid)
        if not waiting.goes_on(frozenset(one.pid for one in left)):
            pids = ", ".join(str(one.pid) for one in left)
            raise Unkillable(f"processes of its last run cannot be killed: {pids}")
        waiting.pause(least=0.02)
    return len(killed)
