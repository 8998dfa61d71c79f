"""What the facts share: the agent's command line on a lab host, and JSON as the answer."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from umlaan.agent import atboot, mark
from umlaan.inventory import load

if TYPE_CHECKING:
    from pyinfra.api.host import Host

T = TypeVar("T")
# Under this name a host keeps why it cannot be reached in this run.
UNREACHABLE = "umlaan_unreachable"
# How many of a host's last lines a message quotes.
TOLD = 8
PACKAGE = Path(__file__).resolve().parent.parent
FAKE_AGENT = "umlaan-agent"
# Where the agent is put on an ssh host: "-" is ~/.cache/umlaan/agent of the user who enters it.
FOLDER = "-"
# Else a random.py or another checkout in the current folder would be taken for the real one.
SAFE = "PYTHONSAFEPATH=1"


class JsonFact(FactBase[Any]):
    """A fact whose command prints one JSON value."""

    def process(self, output: list[str]) -> Any:
        """FactProcessError, quoting the output, where it is not JSON."""
        try:
            return json.loads("\n".join(output))
        except ValueError:
            raise FactProcessError(f"not JSON: {' '.join(output)[:300]}") from None


class NoAnswer(OSError):
    """A host did not say what was asked of it: the fault of who asked, not of the whole host."""


def reach(on: Host, reason: str) -> Host:
    """A host, connected. OSError, naming why, where it cannot be; that is tried once a run."""
    if on.connected:
        return on
    known = on.connector_data.get(UNREACHABLE)
    if known is None:
        try:
            on.connect(reason=reason, show_errors=False, raise_exceptions=True)
        except Exception as error:  # noqa: BLE001 - ConnectError, and whatever its connector raises
            what = "builder" if "builder" in on.groups else "lab host"
            known = f"{what} {on.name} cannot be reached: {error or type(error).__name__}"
            on.connector_data[UNREACHABLE] = known
    if known is not None:
        raise NoAnswer(known)
    return on


def failure_of(on: Host) -> str:
    """Why a lab host that failed in this run can do nothing for its nodes."""
    return on.connector_data.get(UNREACHABLE) or f"lab host {on.name} failed earlier in this run"


def ask(on: Host, fact: type[FactBase[T]], *args: Any, **arguments: Any) -> T:
    """What a host says to a fact. NoAnswer, quoting it, where it does not: who asks fails.

    pyinfra's own get_fact fails the host that is asked, and with a lab host all of its nodes.
    """
    made, state = fact(), on.state
    reach(on, f"to load fact: {made.name}")
    given, _ = pop_global_arguments(
        state, on, dict(on.current_op_global_arguments or {}) | arguments
    )
    control = {k: v for k, v in given.items() if k in CONNECTOR_ARGUMENT_KEYS}
    shown = {"print_output": state.print_fact_output, "print_input": state.print_fact_input}
    try:
        status, output = on.run_shell_command(made.command(*args), **shown, **control)
    except Exception as error:  # noqa: BLE001 - whatever a connection that breaks off raises
        raise NoAnswer(f"{on.name}: {made.name}: {error or type(error).__name__}") from error
    if not status:
        said = [line for line in output.stderr_lines or output.stdout_lines if line.strip()]
        last = "\n".join(said[-TOLD:]) or "its command failed and said nothing"
        raise NoAnswer(f"{on.name} has no answer to {made.name}: {last}")
    if not output.stdout_lines:
        return made.default()
    try:
        return made.process(output.stdout_lines)
    except (FactProcessError, ValueError, LookupError, TypeError) as error:
        raise NoAnswer(f"{on.name}: {made.name}: {error}") from error


def ask_agent(on: Host, fact: type[FactBase[T]], *args: Any) -> T:
    """The same for a fact whose command is a verb of the agent: its first argument."""
    return ask(on, fact, agent(on), *args)


def agent(host: Host) -> str:
    """How to call the agent on a lab host: ``agent(host) + " hash …"``.

    On this machine it runs from the package itself; over ssh one zip file, named by its content,
    is put into a folder of the ssh user's own the first time.
    """
    known = host.connector_data.get("umlaan_agent")
    if isinstance(known, str):
        return known
    connector = type(host.connector).__name__
    if connector == "FakeConnector":
        prefix = FAKE_AGENT
    elif connector == "LocalConnector":
        here, python = shlex.quote(str(PACKAGE.parent)), shlex.quote(sys.executable)
        prefix = f"{SAFE} PYTHONPATH={here} {python} -S -m umlaan.agent"
    else:
        prefix = f"{SAFE} PYTHONPATH={shlex.quote(_brought(host))} python3 -S -m umlaan.agent"
    if connector != "FakeConnector":
        prefix = f"{_told(host)}{prefix}"
    host.connector_data["umlaan_agent"] = prefix
    return prefix


def _told(host: Host) -> str:
    """Which lab's folder a verb may work in; nothing on a machine that only builds."""
    state = getattr(host, "state", None)
    lab = load(state) if state is not None else None
    one = next((h for h in lab.hosts if h.name == host.name), None) if lab else None
    if one is None:
        return ""
    return f"{mark.LAB}={one.lab} {mark.FOLDER}={shlex.quote(one.state_dir)} "


def _brought(host: Host) -> str:
    """The path of the agent's zip on an ssh host, put there if it is not. OSError if it cannot be.

    It lies in a folder of the ssh user's alone, and is compared by content once a run. Two runs may
    put it at once: each writes under a name of its own, and a whole file takes the place of one
    with the same content.
    """
    archive = agent_zip()
    words = (FOLDER, hashlib.sha256(archive).hexdigest())
    reach(host, "to bring the agent")
    there, path = _placed(host, *words)
    if not there:
        arrived = f"{uuid.uuid4().hex}.new"
        host.put_file(io.BytesIO(archive), f"{path.rpartition('/')[0]}/{arrived}")
        _, path = _placed(host, *words, arrived)
    return path


def _placed(host: Host, *words: str) -> tuple[bool, str]:
    """Whether the agent is there and where, as umlaan/agent/trust.py finds it on the host."""
    source = (PACKAGE / "agent" / "trust.py").read_text()
    line = shlex.join(["python3", "-I", "-S", "-c", source, *words])
    # Without a python3 nothing can be run there anyway, and the preflight says so.
    done, output = host.run_shell_command(
        f"if command -v python3 >/dev/null; then {line}; else echo there /nowhere; fi",
        print_output=False,
    )
    said, _, path = output.stdout.strip().partition(" ")
    if not done or said not in ("there", "lacks"):
        raise OSError(f"{host.name}: the agent cannot be put there: {output.stderr}")
    return said == "there", path


def agent_zip() -> bytes:
    """The agent as one zip file, the same bytes for the same content."""
    return atboot.packed(str(PACKAGE.parent))
