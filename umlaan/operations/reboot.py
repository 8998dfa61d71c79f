"""A new host kernel tried once and confirmed, or left; and what else takes a reboot of a machine.

Only where ``reboot`` is "when_needed": else it is said, and left to the user.

What grub takes by default stays the old kernel until the new one has come up and passed its
checks. A machine that panics reboots into the old one by itself (panic=N in the new entry).

Procedure: between the host's compilation and its use, unsaid there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.context import host as context_host
from pyinfra.context import state as context_state

from umlaan.agent.spec import encode
from umlaan.facts.base import agent
from umlaan.model.hostkernel import HostBoot
from umlaan.model.kernel import Kernel
from umlaan.operations import pending
from umlaan.operations.common import (
    agent_command,
    carrier,
    chosen,
    executing,
    fail,
    forget_looks,
    lab,
    why,
)
from umlaan.operations.hostkernel import state_of
from umlaan.operations.node import stop_commands
from umlaan.operations.operation import operation
from umlaan.plan import hostkernel as plan

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

ASK = "cat /proc/sys/kernel/random/boot_id"
EVERY_S = 3.0


@operation()
def into(kernel: Kernel, wish: HostBoot, reboot: str) -> Generator[PyinfraCommand, None, None]:
    """The wanted host kernel runs and is grub's default; tried once before that.

    + kernel: the host kernel, installed already
    + wish: checks after the boot, deadline
    + reboot: never (armed for the next boot, said, the run goes on) or when_needed

    A trial that fails leaves the old kernel running and is said; what does not need the new one
    goes on, and ``told`` fails the host at the end of the run.
    """
    spec, found = state_of(kernel, wish)
    if found is None or found["kernel"] is None:
        if not executing():
            why("host kernel: not built yet; it will be tried once, then confirmed")
            yield agent_command("boot", "arm", encode(spec))
        return
    spec |= {"entry": found["entry"], "release": found["kernel"]["release"]}
    decision = plan.decide(found, reboot, here=_is_here())
    if decision.action in ("wait", "failed"):
        pending.note(decision.text, failed=decision.action == "failed")
        return
    if decision.action == "none":
        return
    why(decision.text)
    word = encode(spec)
    if decision.action in ("arm", "trial"):
        yield agent_command("boot", "arm", word)
    if decision.action == "arm":
        if executing():
            pending.note(decision.text.partition(";")[0], failed=False)
        return
    if decision.action == "trial":
        for node in lab().nodes_on(carrier().name):
            yield from stop_commands(node)
        back = "its next boot is the old kernel: "
        yield FunctionCommand(_reboot, (found["running"]["boot_id"], wish.timeout, back), {})
        forget_looks(context_state)
    yield FunctionCommand(_settle, (word, kernel, wish), {})


def look() -> None:
    """Note a kernel that the current node's lab host waits for, where --limit left that host out.

    In any other run ``into`` has done so.
    """
    name = carrier().name
    settings = lab().settings(name)
    if settings.host_kernel is None or chosen(name) or name in pending.kernels(context_state):
        return
    _, found = state_of(settings.host_kernel, settings.host_boot)
    if found is None or found["kernel"] is None:
        return
    decision = plan.decide(found, "never")
    if decision.action in ("arm", "wait", "failed"):
        pending.note(decision.text.partition(";")[0], failed=False, name=name)


def _is_here() -> bool:
    """Whether the lab host is the machine that this runs on: it cannot reboot and go on."""
    return type(carrier().connector).__name__ == "LocalConnector"


def allowed() -> bool:
    """Whether this run may reboot the current lab host, all of whose nodes it can start again.

    Not beside another machine of the DVS: whichever is rebooted, the other's proxies outlive it.
    """
    name = carrier().name
    beside = [host for host in lab().hosts if host.name != name and host.number is not None]
    return (
        lab().settings(name).reboot == "when_needed"
        and not _is_here()
        and context_host.name == name
        and chosen(name)
        and not beside
        and all(node.host == name and chosen(f"@uml/{node.name}") for node in lab().nodes)
    )


def failed() -> list[str]:
    """Nodes that failed in this run: it would stop them for a reboot, and not start them again."""
    names = {host.name for host in context_state.failed_hosts}
    return [node.name for node in lab().nodes if f"@uml/{node.name}" in names]


def again() -> Generator[PyinfraCommand, None, None]:
    """Reboot the current lab host for another reason than a kernel: say it first, then yield this.

    Its nodes are stopped cleanly before, and stay down until their own stages start them.
    """
    for node in lab().nodes_on(carrier().name):
        yield from stop_commands(node, forget=True)
    deadline = lab().settings(carrier().name).host_boot.timeout
    yield FunctionCommand(_again, (deadline,), {})
    forget_looks(context_state)


def _again(state: State, host: Host, deadline: int) -> None:
    status, output = host.run_shell_command(ASK)
    if not status:
        raise OSError(f"{host.name}: cannot be asked for its boot: {output.output[-300:]}")
    _reboot(state, host, output.stdout.strip(), deadline)


def _reboot(state: State, host: Host, before: str, deadline: int, hint: str = "") -> None:
    """Reboot, wait for another boot to answer, take the lab's lock again. OSError after deadline"""
    # A port that is not served yet is no event: paramiko's thread would print a traceback for each
    # try, up to a minute after it.
    logging.getLogger("paramiko.transport").setLevel(logging.CRITICAL + 1)
    host.run_shell_command("(sleep 1; systemctl reboot || reboot) </dev/null >/dev/null 2>&1 &")
    host.disconnect()
    started = shown = time.monotonic()
    time.sleep(2 * EVERY_S)
    while not _back(host, before):
        now = time.monotonic()
        if now - started > deadline:
            raise OSError(
                f"{host.name} did not come back within {deadline} s; {hint}"
                "cut its power and switch it on again, then run once more"
            )
        if now - shown >= 15:
            shown = now
            logger.info(f"{host.print_prefix}reboot: {now - started:.0f} s, not back yet")
        time.sleep(EVERY_S)
    logger.info(f"{host.print_prefix}reboot: back after {time.monotonic() - started:.0f} s")
    # A home in memory has lost the agent.
    host.connector_data.pop("umlaan_agent", None)
    run = getattr(state, "umlaan_run", None)
    if run is not None:
        run.lock_again(host.name)


def _back(host: Host, before: str) -> bool:
    """True once the machine answers from another boot."""
    try:
        host.connect(show_errors=False)
        if not host.connected:
            return False
        status, output = host.run_shell_command(ASK, _timeout=30)
        if status and output.stdout.strip() not in ("", before):
            return True
    except Exception as error:  # noqa: BLE001 - a machine on its way down fails in many ways
        logger.debug(f"{host.print_prefix}not back: {error}")
    host.disconnect()
    return False


def _settle(state: State, host: Host, word: str, kernel: Kernel, wish: HostBoot) -> None:
    """Judge the trial; a failed one is kept for the end of the run, what does not need it goes on.

    The agent prints what failed; its exit code says only whether the new kernel stays.
    """
    stays, output = host.run_shell_command(f"{agent(host)} boot settle {word}", print_output=False)
    if stays:
        logger.info(f"{host.print_prefix}host kernel: runs, passed its checks, confirmed")
        return
    _, found = state_of(kernel, wish)
    trial: dict[str, Any] | None = found["trial"] if found else None
    if found and trial and trial.get("state") in ("failed", "refused"):
        pending.note(plan.failure(found), failed=True)
    else:
        pending.note(f"host kernel: {output.output.strip()[-600:]}", failed=True)


@operation()
def told() -> Generator[PyinfraCommand, None, None]:
    """Fail the lab host at the end of the run where its wanted kernel was tried and did not stay.

    Everything that does not need that kernel has converged by then.
    """
    row = pending.kernels(context_state).get(context_host.name)
    if row and row[0]:
        yield from fail(row[1])
