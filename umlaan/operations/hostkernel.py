"""The host kernel, installed beside the running one and offered by grub.

Procedure: "make modules_install, make install; update-initramfs -c -k 4.9.88; update-grub".
"""

from __future__ import annotations

import shlex
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pyinfra import logger
from pyinfra.api.command import QuoteString
from pyinfra.context import host as context_host

from umlaan.agent.spec import encode
from umlaan.facts.base import agent
from umlaan.facts.hostkernel import HostKernelLeft, HostKernelState
from umlaan.model.hostkernel import HostBoot
from umlaan.model.kernel import Kernel
from umlaan.operations.common import (
    agent_command,
    agent_fact,
    carrier,
    executing,
    fail,
    lab_host,
    long_command,
    why,
)
from umlaan.operations.operation import operation
from umlaan.plan import hostkernel as plan

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


def state_of(kernel: Kernel, wish: HostBoot) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(the agent's spec, what is there now) of a lab host's kernel."""
    spec = plan.spec(kernel, wish, lab_host())
    return spec, agent_fact(HostKernelState, encode(spec))


@operation()
def installed(kernel: Kernel, wish: HostBoot) -> Generator[PyinfraCommand, None, None]:
    """The built kernel in /boot and /lib/modules, with initramfs and an entry of its own in grub.

    + kernel: the host kernel, built already
    + wish: its parameters, whether it has an initramfs

    The running kernel's files and entry stay as they are. Fails where grub is not there, where it
    has no entry for the running kernel, or where update-initramfs or update-grub fail.
    """
    spec, found = state_of(kernel, wish)
    if found is None:
        yield from fail("host kernel: its state could not be read; the message stands above")
        return
    if found["kernel"] is None and executing():
        yield from fail("host kernel: not built")
        return
    fault = found["fault"] or found["grub"]
    if fault:
        yield from fail(f"host kernel: {fault}")
        return
    rows = plan.reasons(found) if found["kernel"] else ["host kernel: install, not built yet"]
    if not rows:
        return
    for row in rows:
        why(row)
    path = f"{spec['state_dir']}/host-kernel/spec.json"
    yield agent_command("spec", QuoteString(path), encode(spec))
    yield long_command(
        "Host kernel",
        f"{agent(carrier())} host-kernel install {shlex.quote(path)}",
        "host-kernel-install.log",
    )


@operation()
def removed() -> Generator[PyinfraCommand, None, None]:
    """Host kernels of this lab away, with their entries in grub's menu; one that runs stays.

    That is said, with what to do. Fails where update-grub fails.
    """
    spec = plan.leaving(lab_host())
    found = agent_fact(HostKernelLeft, encode(spec))
    if not found or not (found["releases"] or found["files"] or found["state"]):
        return
    if stays := plan.stays(found):
        logger.warning(f"{context_host.print_prefix}{stays}")
        return
    names = ", ".join(found["releases"])
    why(
        f"host kernel: remove {names or 'what was prepared for it'}, and its entries in grub's menu"
    )
    yield agent_command("boot-away", "do", encode(spec), live=True)
