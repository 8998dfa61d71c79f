"""``operation``: pyinfra's, with two promises: a fault is its host's own, and a plan is whole.

pyinfra catches OSError of a command and nothing else: any other exception would end the run of all
hosts by a traceback. And it plans an operation only as far as its first command, so that what is
said after that would be missing in a plan.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec

from pyinfra import logger
from pyinfra.api.command import PyinfraCommand, StringCommand
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import operation as pyinfra_operation
from pyinfra.context import ctx_host
from pyinfra.context import state as context_state

from umlaan.operations.common import FailCommand, executing, fail, note, step_name, why

if TYPE_CHECKING:
    from pyinfra.api.arguments_typed import PyinfraOperation
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

P = ParamSpec("P")
Work = Callable[P, Generator[Any, None, None]]
# How much of a command a message quotes.
QUOTED = 200


def operation(is_idempotent: bool = True) -> Callable[[Work[P]], PyinfraOperation[P]]:
    """pyinfra's decorator; what the generator or a command of it raises fails this host alone."""

    def decorate(work: Work[P]) -> PyinfraOperation[P]:
        @functools.wraps(work)
        def contained(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, None, None]:
            commands = _contained(functools.partial(work, *args, **kwargs))
            yield from commands if executing() else _whole(commands)

        return pyinfra_operation(is_idempotent=is_idempotent)(contained)

    return decorate


def _contained(work: Callable[[], Generator[Any, None, None]]) -> Iterator[Any]:
    """The commands of an operation; an error of its own is the last one."""
    try:
        for command in work():
            yield _guarded(command)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this host's alone
        logger.debug(traceback.format_exc())
        yield from _failed(f"{_step()}: {told(error)}")


def _failed(text: str) -> Iterator[Any]:
    if executing():
        yield from fail(text)
        return
    why(text)
    # Not by fail_hosts: it would end the plan of the others where this is the last one.
    host = ctx_host.get()
    context_state.failed_hosts.add(host)
    context_state.active_hosts.discard(host)
    yield FailCommand(text)


def _whole(commands: Iterator[Any]) -> Iterator[Any]:
    """All commands of a plan, once all their reasons are said; a host that failed has none."""
    if ctx_host.get() in context_state.failed_hosts:
        return
    planned = []
    for command in commands:
        planned.append(command)
        if isinstance(command, FailCommand):
            break
    yield from planned


def _guarded(command: Any) -> Any:
    """The command, made to fail its own host where it raises: step, cause, command and log."""
    if isinstance(command, str):
        command = StringCommand(command.strip())
    if not isinstance(command, PyinfraCommand) or isinstance(command, FailCommand):
        return command
    run = command.execute

    def execute(state: State, host: Host, connector_arguments: Any) -> Any:
        try:
            return run(state, host, connector_arguments)
        except Exception as error:  # noqa: BLE001 - whatever a connection or a callback raises
            logger.debug(traceback.format_exc())
            lines = [f"{_step()}: {told(error)}", f"  command: {_short(command)}"]
            if log := getattr(command, "log", None):
                lines.append(f"  log: {log}")
            text = "\n".join(lines)
            note(text)
            failed, output = FailCommand(text).execute(state, host, connector_arguments)
            return (failed, output) if isinstance(command, StringCommand) else failed

    command.execute = execute  # type: ignore[method-assign]
    return command


def _step() -> str:
    return step_name() or "operation"


def told(error: Exception) -> str:
    """An error in words; one that nobody foresaw names its kind and place, too."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError | PyinfraError):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({last.filename}:{last.lineno})"


def _short(command: PyinfraCommand) -> str:
    text = " ".join(str(command).split())
    return text if len(text) <= QUOTED else f"{text[:QUOTED]} …"
