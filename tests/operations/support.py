"""Run an operation against @fake hosts: arguments and machine answers -> exact commands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyinfra.api.command import PyinfraCommand, StringCommand
from pyinfra.api.config import Config
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State, StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

LAB = "@fake/lab"
NODE = "@uml/node1"


@contextmanager
def current(state: State, host: Host) -> Iterator[None]:
    """This run and this host are the ones that operations speak of."""
    with ExitStack() as stack:
        for context, value in (
            (ctx_state, state),
            (ctx_config, state.config),
            (ctx_inventory, state.inventory),
            (ctx_host, host),
        ):
            stack.enter_context(context.use(value))
        yield


def commands_of(
    operation: Callable[..., Any],
    *args: Any,
    on: str = LAB,
    responses: dict[Any, Any] | None = None,
    data: dict[str, Any] | None = None,
    stage: StateStage = StateStage.Execute,
    reasons: list[tuple[str, str]] | None = None,
    failed: Collection[str] = (),
    before: Callable[[State], None] = lambda state: None,
    nodes: Collection[str] = (NODE,),
    hosts: dict[str, dict[str, Any]] | None = None,
    **kwargs: Any,
) -> list[str]:
    """The commands which the operation yields for one host, as strings.

    responses maps a substring of a command to its output (see pyinfra's @fake); it answers on the
    lab host. An @uml host is carried by it. reasons, if given, receives what was said; failed names
    hosts that failed earlier in the run; before sees the state first; nodes are the lab's, hosts
    its other lab hosts with their data.
    """
    fake = {"fake_responses": responses or {}, "fake_delay": 0.0, "fake_delay_jitter": 0.0}
    shared = data or {}
    carried = [(name, {"lab_host": LAB}) for name in nodes]
    others = [(name, fake | own) for name, own in (hosts or {}).items()]
    inventory = Inventory(([(LAB, fake), *others, *carried], shared))
    state = State(inventory, Config())
    state.current_stage = stage
    host = inventory.get_host(on)
    for each in inventory:
        each.init(state)
        each.connected = True
    state.failed_hosts.update(inventory.get_host(name) for name in failed)
    with current(state, host):
        before(state)
        yielded = [*getattr(operation, "_inner", operation)(*args, **kwargs)]
        if reasons is not None:
            reasons.extend(getattr(state, "umlaan_reasons", []))
    return [_text(command) for command in yielded]


def _text(command: Any) -> str:
    if isinstance(command, StringCommand):
        return command.get_raw_value()
    return repr(command) if isinstance(command, PyinfraCommand) else str(command)
