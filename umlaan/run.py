"""One run: the model validated first, the lab's lock held, the last line printed at its end.

``begin`` is deploy.py's first line. It may import all but cli/ and measure/.
"""

from __future__ import annotations

import atexit
import getpass
import io
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import gevent  # type: ignore[import-untyped]
from pyinfra import logger
from pyinfra.api.exceptions import DeployError, PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_state

from umlaan import outcome
from umlaan.agent import mark
from umlaan.agent.files import narrow_umask
from umlaan.agent.visible import visible
from umlaan.facts.base import UNREACHABLE, NoAnswer, agent
from umlaan.inventory import load
from umlaan.model.base import DataError
from umlaan.model.host import LabHost
from umlaan.model.lab import Lab
from umlaan.plan import lablock
from umlaan.plan.verdict import NodeState, Summary, Verdict, exit_code, verdict_of

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State


class Run:
    """What one run knows of itself."""

    def __init__(self, state: State, lab: Lab, asked: Verdict) -> None:
        self.state = state
        self.lab = lab
        self.asked: Verdict = asked
        self.dry = is_dry()
        self.started = time.monotonic()
        self.nodes: dict[str, NodeState] = {}
        self.tables: list[str] = []
        self.locks: list[Any] = []
        # The greenlets that execute the deploy file, one a host: its error is their value.
        self.loading: set[Any] = set()
        # Lab hosts whose DVS waits for a kernel that does not run yet.
        self.waiting: set[str] = set()
        # --limit named no node: what the nodes are is told, and was not asked to be otherwise.
        self.apart = False

    def counts(self) -> tuple[int, int, int]:
        """(changed, operations, failed) over the hosts of this run."""
        changed = operations = 0
        for host in self.state.inventory:
            for data in self.state.ops.get(host, {}).values():
                operations += 1
                meta = data.operation_meta
                if meta.is_complete():
                    changed += int(meta.did_change())
                elif self.dry:
                    changed += int(bool(meta._maybe_is_change))
        return changed, operations, len(self.state.failed_hosts)

    def lock_again(self, name: str) -> None:
        """Take the lab's lock on a host that was rebooted within this run."""
        self.locks.append(_lock(self.state.inventory.get_host(name), self.lab.host(name)))

    def broke_off(self) -> bool:
        """True where the deploy file raised for a host: pyinfra then plans and does nothing."""
        return any(isinstance(getattr(each, "value", None), Exception) for each in self.loading)

    def ended_early(self) -> bool:
        """True where operations of a host that did not fail never ran: the run itself broke off."""
        if self.state.current_stage < StateStage.Execute:
            return True
        return any(
            not data.operation_meta.is_complete()
            for host in self.state.inventory
            if host not in self.state.failed_hosts
            for data in self.state.ops.get(host, {}).values()
        )

    def finish(self) -> int:
        """Print tables and the last line; the exit code of the whole run."""
        changed, operations, failed = self.counts()
        failed += int(self.broke_off() or (not self.dry and self.ended_early()))
        verdict = verdict_of(
            list(self.nodes.values()),
            to_do=changed if self.dry else len(self.waiting),
            failed=failed,
        )
        seconds = time.monotonic() - self.started
        if isinstance(sys.stdout, io.TextIOWrapper):
            # In a locale that has no arrow the table has a question mark, and the line still comes.
            sys.stdout.reconfigure(errors="replace")
        for table in self.tables:
            print(visible(table))
        summary = Summary(changed, operations, failed, seconds, verdict)
        try:
            outcome.write(self.state, self.lab.name, summary, dry=self.dry)
        except OSError as error:
            print(f"{outcome.VARIABLE}: not written: {error}", file=sys.stderr)
        print(summary.line(), flush=True)
        asked = verdict if self.apart and not self.waiting else self.asked
        return exit_code(verdict, asked, dry=self.dry)


def begin(asked: Verdict = "up") -> Run:
    """Validate the whole inventory, take the lab's lock, promise the last line. Once a run.

    DeployError, one line a fault, on bad data or when another run is at work: nothing has run yet.
    """
    # deploy.py is executed for each host at once, and taking the lab's lock gives way to others.
    with _begin_once:
        run = _begin(ctx_state.get(), asked)
    if run.state.current_stage < StateStage.Execute:
        run.loading.add(gevent.getcurrent())
    return run


_begin_once = threading.Lock()


def _begin(state: State, asked: Verdict) -> Run:
    known = getattr(state, "umlaan_run", None)
    if isinstance(known, Run):
        return known
    try:
        lab = load(state)
    except DataError as error:
        raise DeployError(f"the lab's data is not right, nothing was changed:\n{error}") from None
    narrow_umask()
    run = Run(state, lab, asked)
    if run.dry:
        # With -y pyinfra would skip the very look that a dry run is for, and say "no changes".
        state.check_for_changes = True
    for host in taking_part(state, lab):
        on = state.inventory.get_host(host.name)
        try:
            if on in state.failed_hosts:
                raise NoAnswer(f"lab host {on.name} cannot be reached")
            if run.dry:
                _look(on, host)
            else:
                run.locks.append(_lock(on, host))
        except PyinfraError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever its connection raises
            _leave_out(state, lab, on, str(error) or type(error).__name__)
    state.umlaan_run = run  # type: ignore[attr-defined]
    atexit.register(_last_line, run)
    return run


def taking_part(state: State, lab: Lab) -> list[LabHost]:
    """The lab hosts of this run: those that --limit names, and those that carry a node it names."""
    limited = {host.name for host in state.limit_hosts or ()}
    carriers = {node.host for node in lab.nodes if f"@uml/{node.name}" in limited}
    return [host for host in lab.hosts if not limited or host.name in limited | carriers]


def _leave_out(state: State, lab: Lab, on: Host, why: str) -> None:
    """Say that a lab host cannot take part, and which nodes wait for it; the others go on."""
    nodes = [node.name for node in lab.nodes_on(on.name)]
    stay = f"; left as they are: {', '.join(nodes)}" if nodes else ""
    logger.error(f"{on.print_prefix}{why}{stay}")
    on.connector_data[UNREACHABLE] = why
    # Not by fail_hosts: it would end the run where no other lab host is limited to.
    state.failed_hosts.add(on)
    state.active_hosts.discard(on)


def current() -> Run:
    """The run that deploy.py began."""
    return begin()


def is_dry() -> bool:
    """True under pyinfra --dry; click's own context is not seen from the hosts' greenlets."""
    return "--dry" in sys.argv


def _last_line(run: Run) -> None:
    code = run.finish()
    sys.stdout.flush()
    sys.stderr.flush()
    # pyinfra's own exit code knows nothing of the verdict, and an exit hook cannot change it.
    os._exit(code)


def holder() -> str:
    """Who holds the lock: the words in another run's message."""
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    who = f"{getpass.getuser()}@{socket.gethostname()} pid {os.getpid()}"
    return f"{who} since {started}: {shlex.join(sys.argv)[:200]}"


def _lock(host: Host, lab_host: LabHost) -> Any:
    """One run at a time: a process on the lab host holds the lock while this run lives."""
    words = shlex.join(lablock.words(lab_host.lab, holder()))
    kept, answer = _first_line(host, words)
    if kept is None:
        return None
    if (refused := lablock.refusal(host.name, answer)) is not None:
        # A channel that is still held when the interpreter ends would end it with a traceback.
        kept = None
        raise DeployError(refused)
    return kept


def _first_line(host: Host, words: str) -> tuple[Any, str]:
    """The agent started on a lab host, and its first line; (None, "") where it has no such way.

    OSError where it cannot be reached.
    """
    command = f"exec env {agent(host)} {words}"
    if type(host.connector).__name__ == "LocalConnector":
        process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, process.stdout.readline().strip()
    client = getattr(host.connector, "client", None)
    if client is None:
        return None, ""
    stdin, stdout, _ = client.exec_command(command)
    return (stdin, stdout), stdout.readline().strip()


def _look(host: Host, lab_host: LabHost) -> None:
    """What a dry run, which takes no lock, refuses at once: a state folder that is not the lab's.

    A machine without python3 says nothing here, and the preflight tells its user.
    """
    if not host.connected:
        return
    words = ["mark", "state", lab_host.lab, lab_host.state_dir]
    kind, text = mark.standing(*words[2:]) if _as_root_here(host) else ("", "")
    if not kind:
        _, answer = _first_line(host, shlex.join(words))
        kind, text = json.loads(answer) if answer.startswith("[") else ("", "")
    if kind == "refused":
        raise DeployError(f"{host.name}: {text}")


def _as_root_here(host: Host) -> bool:
    return type(host.connector).__name__ == "LocalConnector" and os.geteuid() == 0
