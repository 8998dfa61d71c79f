"""The lab as a verb sees it: pyinfra's own inventory and data, its lab hosts, asked without a run.

Nothing is kept between two commands: what is shown is read from the machine.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyinfra_cli.inventory  # type: ignore[import-untyped]  # first: it patches for gevent
from pyinfra.api.config import Config
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.output import set_echo
from pyinfra.api.state import State, StateStage
from pyinfra.context import ctx_config, ctx_inventory, ctx_state
from pyinfra_cli.util import parse_cli_arg  # type: ignore[import-untyped]

from umlaan.agent.files import narrow_umask
from umlaan.cli import shown
from umlaan.cli.chosen import Chosen
from umlaan.cli.fault import Fault
from umlaan.facts.base import agent
from umlaan.facts.state_dir import Standing
from umlaan.inventory import load
from umlaan.model.base import DataError
from umlaan.plan.sshto import ssh_to

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from umlaan.model.host import LabHost
    from umlaan.model.lab import Lab
    from umlaan.model.node import Node

T = TypeVar("T")
# How many of the machine's last words a message quotes.
TOLD = 12


class Heard(logging.Handler):
    """Keeps what pyinfra would print, for the one message of a fault."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines.append(record.getMessage().strip())

    def echo(self, message: Any = None, **_: Any) -> None:
        """pyinfra's output of a command that failed."""
        if message:
            self.lines.append(str(message).strip())


class Session:
    """One command's view of the lab."""

    def __init__(self, state: State, lab: Lab, heard: Heard) -> None:
        self.state = state
        self.lab = lab
        self.heard = heard

    def host(self, name: str) -> Host:
        """A lab host, connected. Fault, naming why, if it cannot be reached."""
        host: Host = self.state.inventory.get_host(name)
        if not host.connected:
            self.heard.lines.clear()
            host.connect(show_errors=True)
            if not host.connected:
                raise Fault(
                    f"lab host {name} cannot be reached",
                    *self.heard.lines,
                    "check that it is up and that ssh enters it; then try again",
                )
            self.state.activate_host(host)
        return host

    def node(self, name: str) -> Node:
        """A node by name; a bare number will do. Fault naming those that there are."""
        wanted = f"node{name}" if name.isdigit() else name.removeprefix("@uml/")
        try:
            return self.lab.node(wanted)
        except DataError as error:
            raise Fault(str(error)) from None

    def nodes(self, name: str) -> tuple[Node, ...]:
        """One node, or every one for "all"."""
        return self.lab.nodes if name == "all" else (self.node(name),)

    def reading(self, name: str, read: Callable[[Host], T]) -> T:
        """What read finds on a lab host. Fault, quoting the machine, where it has no answer."""
        host = self.host(name)
        self.heard.lines.clear()
        try:
            answer = read(host)
        except (PyinfraError, OSError) as error:
            raise self._no_answer(name, str(error)) from None
        if host in self.state.failed_hosts:
            raise self._no_answer(name)
        return answer

    def _no_answer(self, name: str, error: str = "") -> Fault:
        """pyinfra's own line about the fact says the whole request: of no use to a person."""
        prefix = self.state.inventory.get_host(name).print_prefix
        said = [line.removeprefix(prefix.strip()).strip() for line in self.heard.lines]
        told = [line[:300] for line in said if "could not load fact" not in line]
        return Fault(f"lab host {name} has no answer:", *(told[-TOLD:] or [error]))

    def ask(self, name: str, fact: Any, *arguments: Any) -> Any:
        """A fact of a lab host."""
        return self.reading(name, lambda host: host.get_fact(fact, *arguments))

    def ask_agent(self, name: str, fact: Any, *arguments: Any) -> Any:
        """A fact whose command is a verb of the agent."""
        return self.ask(name, fact, agent(self.host(name)), *arguments)

    def must_own(self, host: LabHost) -> None:
        """Fault where a lab host's state folder is not this lab's."""
        kind, text = self.ask_agent(host.name, Standing, host.lab, host.state_dir)
        if kind == "refused":
            raise Fault(f"lab host {host.name}: {text}")

    def via(self, name: str, *, terminal: bool = False) -> list[str]:
        """The words before a command line that is to run on a lab host; none on this machine.

        What follows them is one word, a shell's command line (``sh -c`` here).
        """
        host: Host = self.state.inventory.get_host(name)
        kind = type(host.connector).__name__
        if kind == "LocalConnector":
            return []
        if kind != "SSHConnector":
            raise Fault(
                f"lab host {name} is reached by {kind.removesuffix('Connector').lower()}; "
                "this verb knows @local and ssh",
                f"pyinfra does it all the same: pyinfra INVENTORY exec --limit {name} -- …",
            )
        return ssh_to(host.name, host.data.dict(), terminal=terminal)

    def agent(self, name: str) -> str:
        """How the agent is called on a lab host, as a shell's words."""
        return agent(self.host(name))

    def argv(self, name: str, shell: str, *, terminal: bool = False) -> list[str]:
        """The command line, on this machine, of a shell's line on a lab host."""
        via = self.via(name, terminal=terminal)
        return [*via, shell] if via else ["sh", "-c", shell]

    def become(self, name: str, shell: str, *, terminal: bool = False) -> None:
        """Turn this process into a shell's line on a lab host: its terminal, its exit code."""
        words = self.argv(name, shell, terminal=terminal)
        try:
            os.execvp(words[0], words)
        except OSError as error:
            raise Fault(f"{words[0]}: {error.strerror}; it is needed for this") from None

    def show(self, name: str, shell: str, *, always: bool = False) -> int:
        """Run a shell's line on a lab host; what it says is shown, see shown.py. Its exit code."""
        try:
            return shown.show(self.argv(name, shell), always=always)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise Fault(f"{error.filename}: {error.strerror}; it is needed for this") from None

    def run(self, name: str, shell: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A shell's line on a lab host, its output taken as text."""
        return subprocess.run(
            self.argv(name, shell),
            stdin=options.pop("stdin", subprocess.DEVNULL),
            text=True,
            errors="replace",
            check=False,
            **options,
        )


def open_session(choice: Chosen) -> Session:
    """The lab of this inventory and data. Fault with one line a mistake in either."""
    path = choice.path
    if not Path(path).exists() and "@" not in path and "," not in path:
        raise Fault(
            f"there is no {path} here",
            "run umlaan in the folder with inventory.py, or name one: umlaan -i PATH …",
        )
    narrow_umask()
    heard = _quiet()
    state = State(check_for_changes=False)
    state.cwd = os.getcwd()
    ctx_state.set(state)
    config = Config()
    ctx_config.set(config)
    try:
        inventory = pyinfra_cli.inventory.make_inventory(
            path, cwd=state.cwd, override_data=override(choice.data)
        )
        ctx_inventory.set(inventory)
        state.init(inventory, config)
        state.set_stage(StateStage.Execute)
        lab = load(state)
    except DataError as error:
        raise Fault("the lab's data is not right:", *str(error).splitlines()) from None
    except PyinfraError as error:
        raise Fault(f"{path}: {error}", *heard.lines) from None
    except Exception as error:
        raise _in_users_file(path, error) from None
    return Session(state, lab, heard)


def override(items: Sequence[str]) -> dict[str, Any]:
    """--data as pyinfra reads it. Fault for one without a value."""
    found: dict[str, Any] = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise Fault(f"--data {item}: must be KEY=VALUE, for example node.mem=512M", code=64)
        found[key] = parse_cli_arg(value)
    return found


def _quiet() -> Heard:
    """pyinfra's own lines are kept, not shown."""
    heard = Heard()
    logger = logging.getLogger("pyinfra")
    logger.handlers[:] = [heard]
    logger.propagate = False
    set_echo(heard.echo)
    return heard


def _in_users_file(path: str, error: Exception) -> Fault:
    """A fault inside inventory.py or group_data: the file and line, without a traceback."""
    inner: BaseException = getattr(error, "exception", None) or error
    trace, place = inner.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.endswith("inventory.py") and "site-packages" not in file or "group_data" in file:
            place = f"{os.path.relpath(file)}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return Fault(f"{place or path + ': '}{type(inner).__name__}: {inner}")
