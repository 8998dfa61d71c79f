"""Members brought up in waves: as many nodes boot at the same time as their lab host can carry.

All at once, each of 32 guests boots 16 times as slowly on two cores: nothing is up earlier, and
whatever waits for an answer of one of them waits longest.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pyinfra.context import state as context_state
from pyinfra.facts.hardware import Cpus

from umlaan.agent.atboot import PER_CORE
from umlaan.facts.base import ask
from umlaan.operations.common import LabCommand, carrier, kept

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State


def at_once(cores: int | None) -> int:
    """How many nodes boot at the same time on a machine with so many cores."""
    return PER_CORE * max(1, cores or 1)


def places(on: Host) -> threading.Semaphore:
    """The places of a lab host's waves; its cores are asked for once a run."""
    known: dict[str, threading.Semaphore] = kept(context_state, "waves", dict)
    if on.name not in known:
        # Meanwhile another node may have asked the same: the first answer counts for all.
        known.setdefault(on.name, threading.Semaphore(at_once(ask(on, Cpus))))
    return known[on.name]


class First(LabCommand):
    """The start of a node: waits for a place, which ``Last`` gives back; so does one that fails."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        """Run once there is a place."""
        place = places(carrier(host))
        place.acquire()
        status = False
        try:
            status, output = super().execute(state, host, connector_arguments)
        finally:
            if not status:
                place.release()
        return status, output


class Last(LabCommand):
    """The wait for a node that ``First`` has started: up or given up, its place is free."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        """Run, and leave the place to the next node."""
        try:
            return super().execute(state, host, connector_arguments)
        finally:
            places(carrier(host)).release()
