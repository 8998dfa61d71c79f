"""A machine that builds for a slow or remote lab host: commands there, artifacts brought over."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import state as context_state

from umlaan.facts.base import agent, ask_agent, reach
from umlaan.model.hostkernel import Builder
from umlaan.operations.common import LabCommand, carrier, lab

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State


def builder() -> Builder | None:
    """The builder of the current host's lab host; None where it builds itself."""
    return lab().builder(carrier().name)


def builder_host(which: Builder) -> Host:
    """The builder as a connected pyinfra host.

    OSError if it failed earlier in this run or does not answer.
    """
    found: Host = context_state.inventory.get_host(which.name)
    if found in context_state.failed_hosts:
        raise OSError(f"builder {found.name} failed earlier in this run")
    return reach(found, "to build")


def unreachable(which: Builder | None) -> str | None:
    """In words why the builder cannot be asked; None where it can, or where there is none."""
    if which is None:
        return None
    try:
        builder_host(which)
    except OSError as error:
        return f"{error}: what it is to build cannot be compared or brought"
    return None


def builder_fact(which: Builder, fact: Any, *args: Any) -> Any:
    """A fact of the builder whose command is a verb of the agent."""
    return ask_agent(builder_host(which), fact, *args)


class BuildCommand(LabCommand):
    """A command on the builder, its progress shown on the lab host's behalf."""

    def __init__(self, which: Builder, *bits: Any, live: bool = False) -> None:
        super().__init__(*bits, live=live)
        self.which = which

    def where(self, host: Host) -> Host:
        """The builder."""
        return builder_host(self.which)


def build_command(
    which: Builder, step: str, words: list[str], log: str, progress: str = "lines"
) -> BuildCommand:
    """A verb of the agent that takes long, on the builder, with its log there."""
    on = agent(builder_host(which))
    command = f"{on} {shlex.join(words)}"
    run = ["--step", f"{step} on {which.name}", "--log", f"{which.cache_dir}/log/{log}"]
    run += ["--progress", progress, "--", "sh", "-ec", command]
    made = BuildCommand(which, on, "run", shlex.join(run), live=True)
    made.log = f"{which.cache_dir}/log/{log}"
    return made


class Bring(StringCommand):
    """Copy a folder with its stamp from the builder to the lab host."""

    def __init__(self, which: Builder, what: str, origin: str, target: str) -> None:
        super().__init__("bring", f"{which.name}:{origin}", target)
        self.which, self.what, self.origin, self.target = which, what, origin, target

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        """Pack there, fetch where it is not this machine, put, unpack beside and rename."""
        source, on = builder_host(self.which), carrier(host)
        # Each lab host its own parcel: another may be brought the same artifact at this moment.
        name = f"{lab().name}-{on.name}-{Path(self.origin).name}".replace("/", "_")
        packed = f"{self.which.cache_dir}/send/{name}.tar.gz"
        # Labs may share a cache: each has a parcel of its own.
        landed = f"{Path(self.target).parent}/.{Path(self.target).name}.{lab().name}.tar.gz"
        status, output = _run(source, "bring", "pack", self.origin, packed)
        if not status:
            return status, output
        with tempfile.TemporaryDirectory(prefix="umlaan-") as folder:
            here = packed
            if type(source.connector).__name__ != "LocalConnector":
                here = f"{folder}/artifact"
                source.get_file(packed, here)
            size = Path(here).stat().st_size
            logger.info(f"{host.print_prefix}{self.what}: {size / 1e6:.1f} MB to {on.name}")
            status, output = _run(on, "bring", "ready", str(Path(landed).parent), landed)
            if not status:
                return status, output
            if not on.put_file(here, landed):
                return False, CommandOutput([])
        status, output = _run(on, "bring", "take", landed, self.target)
        source.run_shell_command(f"rm -f {shlex.quote(packed)}", print_output=False)
        return status, output


def _run(on: Host, *words: str) -> tuple[bool, CommandOutput]:
    status, output = on.run_shell_command(f"{agent(on)} {shlex.join(words)}", print_output=False)
    return bool(status), output
