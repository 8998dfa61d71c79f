"""Nodes wait for their lab hosts: one shared operation between the hosts' stages and the nodes'.

pyinfra orders each host's operations, not one host's before another's; what all hosts share does.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra.context import ctx_state
from pyinfra.context import host as context_host

from umlaan.facts.base import failure_of
from umlaan.operations.common import carrier, fail
from umlaan.operations.operation import operation

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


@operation()
def ready() -> Generator[PyinfraCommand, None, None]:
    """Nothing on a lab host; a node of a lab host that failed in this run fails at once."""
    on = carrier()
    if on.name != context_host.name and on in ctx_state.get().failed_hosts:
        yield from fail(f"{failure_of(on)}, so its nodes stay as they are")
