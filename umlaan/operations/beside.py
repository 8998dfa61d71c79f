"""Builds that need nothing of each other go on side by side, and are awaited in one place.

Kernel, DVS and base image do not wait for each other: an operation begins its long command and is
done; ``awaited`` stands before whatever uses the results, and fails where one of them failed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import gevent  # type: ignore[import-untyped]
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_host
from pyinfra.context import host as context_host
from pyinfra.context import state as context_state

from umlaan.operations.common import LabCommand, executing, fail, kept
from umlaan.operations.operation import operation

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    Works = dict[str, list[tuple[str, Any]]]


class BesideCommand(LabCommand):
    """A long command that goes on while the host's next operations run."""

    def __init__(self, step: str, command: LabCommand) -> None:
        super().__init__(*command.bits, live=command.live)
        self.step, self.command = step, command

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        """Begin it, and say no more than that it was begun."""
        work = gevent.spawn(self._run, state, host, dict(connector_arguments))
        begun(state).setdefault(host.name, []).append((self.step, work))
        return True, CommandOutput([])

    def _run(self, state: State, host: Host, connector_arguments: Any) -> str | None:
        """What it failed with; None where it did not."""
        with ctx_host.use(host):
            try:
                status, _ = self.command.execute(state, host, connector_arguments)
            except Exception as error:
                # Whatever a connection that breaks off raises: told where it is awaited.
                return str(error) or type(error).__name__
        said = self.command.output
        return None if status else (said.stderr or said.stdout if said else "")


def begun(state: State) -> Works:
    """{host: [(step, its greenlet)]} of all that was begun and is not awaited yet."""
    return kept(state, "beside", dict)


@operation()
def awaited() -> Generator[PyinfraCommand, None, None]:
    """All that this host began is done; it changes nothing itself.

    Fails, quoting what each of them said, where one failed; the others are awaited all the same.
    """
    if not executing():
        return
    faults = []
    for step, work in begun(context_state).pop(context_host.name, []):
        said = work.get()
        if said is not None:
            faults.append(said or f"{step}: failed")
    if faults:
        yield from fail("\n".join(faults))
