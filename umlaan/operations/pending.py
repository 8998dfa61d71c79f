"""Host kernels that are wanted and do not run yet, and the stages that wait for them.

What waits is said and changes nothing; all else converges. The verdict is then not "up".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyinfra import logger
from pyinfra.context import host as context_host
from pyinfra.context import state as context_state

from umlaan.operations.common import kept
from umlaan.run import current

if TYPE_CHECKING:
    from pyinfra.api.state import State


def kernels(state: State) -> dict[str, tuple[bool, str]]:
    """{lab host: (failed, message)}: a wanted kernel that does not run; deploy.py ends with it."""
    return kept(state, "pending_kernels", dict)


def note(text: str, *, failed: bool, name: str | None = None) -> None:
    """Say that the wanted kernel does not run, and keep it for the end of the run.

    name: the lab host; the current host without.
    """
    kernels(context_state)[name or context_host.name] = (failed, text)
    (logger.error if failed else logger.warning)(f"{context_host.print_prefix}{text}")


def host_waits(name: str, what: str) -> bool:
    """True, and said, where a lab host's DVS needs a kernel that does not run on it yet."""
    row = kernels(context_state).get(name)
    if row is None:
        return False
    current().waiting.add(name)
    logger.warning(f"{context_host.print_prefix}{what} waits: {row[1]}")
    return True


def node_waits(carrier: str, what: str) -> bool:
    """True, and said, for what needs the DVS of a lab host that waits."""
    if not kernels(context_state) or carrier not in current().waiting:
        return False
    logger.warning(f"{context_host.print_prefix}{what} waits for the DVS of its lab host")
    return True
