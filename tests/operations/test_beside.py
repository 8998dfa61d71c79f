"""Builds that go on side by side: begun at once, awaited in one place, which tells a failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from paramiko import SSHException
from pyinfra.api.config import Config
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State, StateStage
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_host

from tests.operations.support import LAB, current
from umlaan.operations import beside
from umlaan.operations.common import LabCommand

WAIT_S = 30.0


@pytest.fixture
def here() -> Iterator[tuple[State, Host]]:
    """A run at its execute stage, on one lab host."""
    inventory = Inventory(([(LAB, {})], {}))
    state = State(inventory, Config())
    state.current_stage = StateStage.Execute
    host = inventory.get_host(LAB)
    host.init(state)
    host.connected = True
    with current(state, host):
        yield state, host


class Build(LabCommand):
    """A long command that ends when it is told to."""

    def __init__(self, fails: str | None = None) -> None:
        super().__init__("build", live=True)
        self.fails, self.running, self.go = fails, Event(), Event()

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        self.running.set()
        assert self.go.wait(WAIT_S)
        if self.fails == "unreachable":
            raise OSError("the lab host is gone")
        if self.fails == "cut off":
            raise SSHException("the connection broke off")
        if self.fails:
            self.output = CommandOutput([OutputLine("stderr", self.fails)])
        return self.fails is None, CommandOutput([])


def awaiting(host: Host) -> list[str]:
    """What the operation that waits has to say; in whichever greenlet it is asked."""
    with ctx_host.use(host):
        return [command.get_raw_value() for command in beside.awaited._inner()]


def begin(here: tuple[State, Host], step: str, build: Build) -> None:
    status, _ = beside.BesideCommand(step, build).execute(*here, {})
    assert status


def test_two_builds_run_at_the_same_time_and_both_are_awaited(here: tuple[State, Host]) -> None:
    builds = [Build(), Build()]
    for build in builds:
        begin(here, "image", build)
    for build in builds:
        assert build.running.wait(WAIT_S)
    waiting = gevent.spawn(awaiting, here[1])
    builds[0].go.set()
    gevent.idle()
    assert not waiting.dead
    builds[1].go.set()
    assert waiting.get(timeout=WAIT_S) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image: failed, exit code 3", "image: failed, exit code 3"),
        ("unreachable", "the lab host is gone"),
        ("cut off", "the connection broke off"),
    ],
)
def test_a_failure_is_told_where_it_is_awaited_and_the_other_is_finished(
    here: tuple[State, Host], text: str, told: str
) -> None:
    bad, good = Build(fails=text), Build()
    begin(here, "image", bad)
    begin(here, "dvs", good)
    bad.go.set()
    good.go.set()
    said = awaiting(here[1])
    assert said == [told]
    assert good.running.is_set()
    assert awaiting(here[1]) == []


def test_nothing_begun_is_nothing_to_wait_for(here: tuple[State, Host]) -> None:
    assert awaiting(here[1]) == []


def test_a_plan_begins_and_awaits_nothing(here: tuple[State, Host]) -> None:
    here[0].current_stage = StateStage.Prepare
    assert awaiting(here[1]) == []


def test_what_is_shown_of_a_command_is_the_command() -> None:
    command = LabCommand("mmdebstrap", "bookworm", live=True)
    shown = beside.BesideCommand("base image", command)
    assert shown.get_raw_value() == command.get_raw_value() == "mmdebstrap bookworm"
