"""The machine checked for what the lab needs, before anything is changed."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.context import host as context_host

from umlaan.facts.preflight import examine
from umlaan.model.host import LabHost
from umlaan.operations.common import carrier, fail, lab
from umlaan.operations.operation import operation


@operation(is_idempotent=True)
def machine(host: LabHost) -> Generator[StringCommand, None, None]:
    """
    Fail the lab host if it lacks what the lab needs: all lacks at once, each with its remedy.

    Never a change: root, /dev/net/tun, namespaces, loop devices, ext4, architecture, apt, python3,
    space and inodes under state_dir and cache_dir, an executable /dev/shm, the user's partitions.

    + host: the lab host

    **Example:**

    .. code:: python

        preflight.machine(name="Preflight", host=lab_host())
    """
    _, report = examine(carrier(), lab(), host)
    if report.lacks:
        yield from fail(report.message(host))
        return
    for note in report.notes:
        logger.warning(f"{context_host.print_prefix}{note}")
