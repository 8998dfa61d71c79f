"""What the operations share: reasons, commands on the lab host that carries a node, long commands.

An operation of a node runs for its @uml/… host, so that a failure stops that node alone; its
commands run on the lab host. ``carrier(host)`` gives that lab host, for node0 the host itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pyinfra import logger
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.state import StateStage
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import host as context_host
from pyinfra.context import state as context_state

from umlaan.agent.visible import visible
from umlaan.facts.base import agent, ask, ask_agent, failure_of, reach
from umlaan.inventory import is_uml, load
from umlaan.model.host import LabHost
from umlaan.model.lab import Lab

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

T = TypeVar("T")
# Of what is said of one change; a guest may have had its part in the words.
LONGEST = 20_000


def lab() -> Lab:
    """The lab of this run."""
    return load(context_state)


def carrier(host: Host | None = None) -> Host:
    """The pyinfra host on which a node's commands run; a lab host is its own.

    OSError, naming the cause, if that lab host failed earlier in this run.
    """
    current: Host = host or context_host
    if not is_uml(current):
        return current
    node = lab().node(current.name.removeprefix("@uml/"))
    found: Host = context_state.inventory.get_host(node.host)
    return found


def lab_host() -> LabHost:
    """The model of the lab host on which the current operation's commands run."""
    return lab().host(carrier().name)


def executing() -> bool:
    """True while operations really run; False while pyinfra only plans."""
    return bool(context_state.current_stage == StateStage.Execute)


def chosen(name: str) -> bool:
    """Whether --limit leaves a host in this run."""
    limited = [host.name for host in context_state.limit_hosts or ()]
    return not limited or name in limited


def why(text: str) -> None:
    """Say the reason of a change, once a run, and keep it for the plan and the summary."""
    # It may quote what a guest said.
    text = visible(text[:LONGEST])
    reasons = reasons_of(context_state)
    row = (context_host.name, text)
    if row in reasons:
        return
    reasons.append(row)
    _step(text)
    logger.info(f"{context_host.print_prefix}{text}")


def kept(state: State, name: str, make: Callable[[], T]) -> T:
    """What this run keeps under a name, from one operation to the next; made the first time."""
    attribute = f"umlaan_{name}"
    if not hasattr(state, attribute):
        setattr(state, attribute, make())
    found: T = getattr(state, attribute)
    return found


def reasons_of(state: State) -> list[tuple[str, str]]:
    """(host, reason) of every change said so far in this run."""
    return kept(state, "reasons", list)


def steps_of(state: State) -> dict[tuple[str, str], str]:
    """{(host, reason): the operation that said it} of this run."""
    return kept(state, "steps", dict)


def step_name() -> str | None:
    """The operation that is at work; in a test there may be none."""
    op_hash = context_host.current_op_hash
    return None if op_hash is None else ", ".join(sorted(context_state.op_meta[op_hash].names))


def _step(text: str) -> None:
    """Note which operation is speaking."""
    if name := step_name():
        steps_of(context_state)[context_host.name, text] = name


class LabCommand(StringCommand):
    """A command that runs on the lab host, live: its progress lines show while it runs."""

    def __init__(self, *bits: Any, live: bool = False, **arguments: Any) -> None:
        super().__init__(*bits, **arguments)
        self.live = live
        # Where all that it prints is kept.
        self.log: str | None = None
        self.output: CommandOutput | None = None

    def where(self, host: Host) -> Host:
        """The pyinfra host that runs it."""
        return carrier(host)

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        """Run on the carrier; a lab host that failed fails its nodes at once, naming it."""
        on = self.where(host)
        if on is not host and on in state.failed_hosts:
            raise OSError(failure_of(on))
        reach(on, f"to reach {host.name}")
        connector_arguments.update(self.connector_arguments)
        try:
            status, output = on.run_shell_command(
                self,
                print_output=self.live or state.print_output,
                print_input=state.print_input,
                **connector_arguments,
            )
        finally:
            forget_nodes(state)
        self.output = output
        # What was shown live is not printed a second time by pyinfra's failure path.
        return status, CommandOutput([]) if self.live and not status else output


def forget_nodes(state: State) -> None:
    """A command on a lab host may change what its nodes are: every @uml host looks again."""
    for each in state.inventory:
        forget = getattr(getattr(each, "connector", None), "forget", None)
        if forget is not None:
            forget()


def forget_looks(state: State) -> None:
    """A lab host was rebooted: nothing that this run has looked at holds any more."""
    forget_nodes(state)
    views = getattr(state, "umlaan_dvs_views", None)
    if views is not None:
        views.clear()


def on_lab_host(*bits: Any) -> LabCommand:
    """A short command on the lab host that carries the current host. Quote with QuoteString."""
    return LabCommand(*bits)


def agent_command(verb: str, *bits: Any, live: bool = False) -> LabCommand:
    """A verb of the agent on the lab host."""
    return LabCommand(agent(carrier()), verb, *bits, live=live)


def long_command(
    step: str, command: str, log: str, progress: str = "lines", lock: str | None = None
) -> LabCommand:
    """A shell command that takes long: log, progress, and a failure that quotes the log's end.

    log is a name under the lab host's log folder; lock names what must not be built twice at once.
    """
    where = lab_host()
    bits: list[Any] = ["--step", QuoteString(step)]
    bits += ["--log", QuoteString(f"{where.log_dir}/{log}"), "--progress", QuoteString(progress)]
    if lock:
        bits += ["--lock", QuoteString(lock)]
    made = agent_command("run", *bits, "--", "sh", "-ec", QuoteString(command), live=True)
    made.log = f"{where.log_dir}/{log}"
    return made


class FailCommand(StringCommand):
    """Fails the one host with a message that is for its user, at execute only."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        """Print the message and fail."""
        for line in self.get_raw_value().splitlines():
            logger.error(f"{host.print_prefix}{line}")
        return False, CommandOutput([])


def note(message: str) -> None:
    """Keep for the summary what a failing command says itself."""
    reasons_of(context_state).append((context_host.name, message))
    _step(message)


def fail(message: str) -> Iterator[StringCommand]:
    """Yield from this to fail the current host with one clear message."""
    message = visible(message[:LONGEST])
    if executing():
        note(message)
    else:
        why(message)
    yield FailCommand(message)


def lab_fact(fact: Any, *args: Any) -> Any:
    """A fact of the lab host that carries the current host; NoAnswer fails the current host."""
    return ask(carrier(), fact, *args)


def agent_fact(fact: Any, *args: Any) -> Any:
    """A fact of the lab host whose command is a verb of the agent (its first argument)."""
    return ask_agent(carrier(), fact, *args)


def compared() -> set[str]:
    """Nodes whose DVS tree this run has found as built: verification need not hash it again."""
    return kept(context_state, "compared", set)
