"""Nodes are started in waves: so many at once as the lab host has cores for, whatever fails."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from umlaan.operations import common, waves

HOST = SimpleNamespace(name="@local")


class Machine:
    """Counts the nodes that boot at the same time; every third does not start."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.booting = self.most = self.done = 0

    def execute(self, command: Any, state: Any, host: Any, arguments: Any) -> Any:
        first = isinstance(command, waves.First)
        good = not first or host.number % 3
        with self.lock:
            if first and good:
                self.booting += 1
                self.most = max(self.most, self.booting)
            elif not first:
                self.booting -= 1
                self.done += 1
        time.sleep(0.02)
        return bool(good), None


def test_no_more_nodes_boot_at_once_than_two_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, state = Machine(), SimpleNamespace()
    monkeypatch.setattr(
        common.LabCommand, "execute", lambda self, *words: machine.execute(self, *words)
    )
    monkeypatch.setattr(waves, "carrier", lambda host: HOST)
    monkeypatch.setattr(waves, "ask", lambda on, fact: 2)
    monkeypatch.setattr(waves, "context_state", state)

    def node(number: int) -> None:
        host: Any = SimpleNamespace(number=number)
        status, _ = waves.First("start").execute(state, host, {})  # type: ignore[arg-type]
        if status:
            waves.Last("wait").execute(state, host, {})  # type: ignore[arg-type]

    threads = [threading.Thread(target=node, args=(number,)) for number in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert machine.done == 10, "one that did not start keeps no place"
    assert 1 < machine.most <= waves.at_once(2) == 4


def test_a_machine_that_does_not_say_its_cores_starts_two_at_once() -> None:
    assert waves.at_once(None) == 2
