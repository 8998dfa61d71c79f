"""``@uml/nodeN``: the root of a UML node as a pyinfra host, whichever way it can be reached.

It rides on the connection of the lab host that carries the node. A stopped node is entered through
its root (chroot), a running one through the guest (ssh); one that is up but does not answer is a
third state: then nothing is known, and nothing is done to its root.
"""

from __future__ import annotations

import contextlib
import copy
import shlex
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from io import IOBase
from typing import Any, Literal

from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import InventoryError
from pyinfra.api.host import Host
from pyinfra.api.output import echo, format_text
from pyinfra.api.state import StateStage
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    extract_control_arguments,
    make_unix_command_for_host,
)

from umlaan.agent.chroot import MARK
from umlaan.agent.sandbox import MISSING
from umlaan.echo import make_visible
from umlaan.facts.base import agent, failure_of, reach
from umlaan.facts.node import node_rows
from umlaan.inventory import load
from umlaan.model.base import DataError
from umlaan.model.node import Node
from umlaan.plan import node as plan
from umlaan.plan import outspoken
from umlaan.plan.access import fetches, mirrors, root_run_words, ssh_options, ssh_words
from umlaan.plan.outspoken import LIMITS, Limits

Way = Literal["root", "guest", "none"]
# What was seen of a node is taken for what it is, unless something changed, for so many seconds.
FRESH_S = 5.0
# A look into a node is over in seconds; what umlaan itself has done there, in minutes.
LOOK_S, WORK_S = 300, 3600
SPARE_S = 15

# Writes what it reads beside the file, then takes its place: old or new, never half.
_PUT = """\
f=$(readlink -f {path} 2>/dev/null) || f=; [ -n "$f" ] || f={path}
[ -d "$f" ] && {{ echo "$f is a directory" >&2; exit 1; }}
t="$f.umlaan-{token}"; set -C; : >"$t" || exit 1; set +C
trap 'rm -f "$t"' EXIT
cat >"$t" || exit 1
[ "$(wc -c <"$t")" -eq {size} ] || {{ echo "only a part of $f arrived" >&2; exit 1; }}
[ ! -e "$f" ] || {{ chown --reference="$f" "$t" && chmod --reference="$f" "$t"; }}
mv -f "$t" "$f"
"""


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Whatever a lab host's connection raises, as what pyinfra catches of a file's command."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error


class UmlConnector(BaseConnector):
    """Rides on the lab host's connection: chroot into a stopped node's root, ssh into a live one.

    Lazy: ``connect`` does nothing, because the node may be one that this very run creates. Before
    the execute stage a node that does not exist answers like an empty machine.
    """

    handles_execution = True

    def __init__(self, state: Any, host: Host) -> None:
        super().__init__(state, host)
        make_visible()
        self._way: Way | None = None
        self._kept: dict[str, tuple[StateStage, float, int, Any]] = {}
        # Commands that were run in the node, or that may have changed what it is.
        self._ran = 0

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """One host a name; InventoryError without one."""
        if not name:
            raise InventoryError("@uml needs a node's name: @uml/node1")
        yield f"@uml/{name}", {}, ["@uml"]

    def connect(self) -> None:
        """Nothing yet: the node may be one that this very run creates."""

    def disconnect(self) -> None:
        """Nothing: the shared ssh connection ends by itself."""

    def forget(self) -> None:
        """A command changed what the node may be: look again before the next one."""
        self._way = None
        self._kept.clear()
        self._ran += 1

    def keep(self, what: str, value: Any) -> None:
        """Note what was just seen of the node."""
        self._kept[what] = (self.state.current_stage, time.monotonic(), self._ran, value)

    def recall(self, what: str, *, inside: bool = True) -> Any:
        """What was noted, as long as it cannot have changed; else None.

        inside: it speaks of what is in the node, which any command that is run there may change.
        """
        stage, when, ran, value = self._kept.get(what, (None, 0.0, 0, None))
        if stage is not self.state.current_stage or time.monotonic() - when > FRESH_S:
            return None
        return None if inside and ran != self._ran else value

    def row(self) -> dict[str, Any] | None:
        """What the agent says of the node, asked once until something changes.

        None in a plan whose lab host cannot say; at execute that is an OSError.
        """
        known: dict[str, Any] | None = self.recall("row", inside=False)
        if known is None:
            try:
                on = self.carrier
            except OSError:
                if self.state.current_stage >= StateStage.Execute:
                    raise
                return None
            known = node_rows(on, load(self.state), (self.node,)).get(self.node.name)
            self.keep("row", known)
        return known

    @property
    def node(self) -> Node:
        """The node of this host. OSError if the data is bad or knows no such node."""
        try:
            return load(self.state).node(self.host.name.removeprefix("@uml/"))
        except DataError as error:
            raise OSError(str(error)) from None

    @property
    def carrier(self) -> Host:
        """The lab host, connected; ``--limit`` brings it along. OSError if it failed."""
        lab_host: Host = self.state.inventory.get_host(self.node.host)
        if lab_host in self.state.failed_hosts:
            raise OSError(failure_of(lab_host))
        return reach(lab_host, f"to reach {self.host.name}")

    def _row(self) -> dict[str, Any]:
        on, row = self.carrier, self.row()
        if row is None:
            raise OSError(f"lab host {on.name} does not say what {self.node.name} is doing")
        return row

    def way(self) -> Way:
        """How to reach the node now. OSError where nothing can be known of it."""
        if self._way is None:
            self._way = self._look()
        return self._way

    def _look(self) -> Way:
        node, row = self.node, self._row()
        if row["running"]:
            if not row["answers"]:
                self._await_answer(row)
            return "guest"
        if row["root_exists"]:
            return "root"
        if self.state.current_stage < StateStage.Execute:
            return "none"
        raise OSError(f"{node.name} does not exist yet: there is no root at {node.root_path}")

    def _await_answer(self, row: dict[str, Any]) -> None:
        """A node that boots gets its time; one that is up for longer is told at once."""
        node = self.node
        left = node.settings.boot_timeout - row["uptime"]
        words = StringCommand(agent(self.carrier), "node-wait")
        order = {**plan.address_of(node), "deadline": max(left, 2.0)}
        answered, output = self.carrier.run_shell_command(
            StringCommand(words, shlex.quote(plan.as_json(order))), print_output=False
        )
        if not answered:
            told = "\n".join(output.stderr_lines or output.stdout_lines)
            raise OSError(
                f"{node.name} is up but cannot be reached, so what it holds is unknown and its "
                f"root is left alone:\n{told}"
            )
        self._kept.clear()

    def _wrapped(self, command: str, way: Way) -> StringCommand:
        """The command line on the lab host that runs one in the node."""
        node = self.node
        if way == "guest" and node.network.gateway is None and fetches(command):
            inside = [node.network.namespace or "-", *mirrors(node), "ssh", *ssh_options(node)]
            words = [*inside, f"root@{node.address}", command]
            return StringCommand(agent(self.carrier), "outward", *map(shlex.quote, words))
        if way == "guest":
            return StringCommand(*map(shlex.quote, ssh_words(node)), shlex.quote(command))
        # Nothing but facts runs before: what only reads leaves even the journal alone.
        read_only = self.state.current_stage < StateStage.Execute
        words = root_run_words(node, command, read_only=read_only)
        return StringCommand(agent(self.carrier), *map(shlex.quote, words))

    def _bounded(self, command: StringCommand, limits: Limits) -> StringCommand:
        """The command, listened to on the lab host as long and as much as is allowed."""
        words = outspoken.words(self.node.name, limits)
        # A limit may be asked of the lab host's shell; the agent's own words begin with variables.
        return StringCommand(*words, "env", command)

    def _as_this_host(self) -> BaseConnector:
        """The lab host's connection, printing under this host's name."""
        connector = copy.copy(self.carrier.connector)
        connector.host = self.host
        return connector

    def _run(
        self,
        command: str,
        print_output: bool,
        before: str = "",
        after: str = "",
        limits: Limits = LIMITS,
        **control: Any,
    ) -> tuple[bool, CommandOutput]:
        """Run by the way that was found; look once more where that is no longer the way."""
        limits = replace(limits, seconds=control.get("_timeout") or self._patience())
        if control.get("_timeout"):
            # pyinfra's own stops listening and leaves the command alone: it comes second.
            control["_timeout"] += SPARE_S
        for attempt in (1, 2):
            way = self.way()
            if way == "none":
                return True, CommandOutput([])
            self._ran += 1
            bounded = self._bounded(self._wrapped(command, way), limits)
            wrapped = StringCommand(before, bounded, after)
            status, output = self._as_this_host().run_shell_command(
                wrapped, print_output=print_output, print_input=False, **control
            )
            if status or attempt == 2 or not self._lost(way, output):
                break
            self.forget()
        if self._unseen(output):
            return True, CommandOutput([])
        self._raise_if_refused(status, output)
        return status, output

    def _unseen(self, output: CommandOutput) -> bool:
        """True for a plan where the same run first installs what a root is entered with.

        Then what the root holds is not known yet: it reads as an empty machine.
        """
        last = next(iter(reversed(output.stderr_lines)), "")
        return self.state.current_stage < StateStage.Execute and last == f"{MARK}{MISSING}"

    def _patience(self) -> int:
        """Seconds for a command without a _timeout; 0, no end, for what a user runs there."""
        if self.state.current_stage < StateStage.Execute:
            return self.look_seconds()
        return 0

    def look_seconds(self) -> int:
        """What a look into the node may take, however slow it is."""
        return max(LOOK_S, 2 * self.node.settings.boot_timeout)

    def _lost(self, way: Way, output: CommandOutput) -> bool:
        """True where the command did not run because the node was stopped or started meanwhile."""
        last = next(iter(reversed(output.stderr_lines)), "")
        if way == "root":
            return last.startswith(MARK) and "is up" in last
        # Only what ssh says before a command begins: one that had begun is never run twice.
        return last.startswith(("ssh: connect to", "kex_exchange", "mux_client_request"))

    def _raise_if_refused(self, status: bool, output: CommandOutput) -> None:
        last = next(iter(reversed(output.stderr_lines)), "")
        if not status and last.startswith(MARK):
            raise OSError(f"{self.node.name}: {last.removeprefix(MARK)}")

    def run_shell_command(
        self, command: Any, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Run a command in the node; fails, saying so, where nothing can be known of it."""
        control = extract_control_arguments(arguments)  # type: ignore[arg-type]
        unix_command = make_unix_command_for_host(self.state, self.host, command, **arguments)
        logger.debug("--> Running on %s: %s", self.host.name, unix_command)
        if print_input:
            echo(f"{self.host.print_prefix}>>> {unix_command}", err=True)
        try:
            return self._run(unix_command.get_raw_value(), print_output, **control)
        except Exception as error:  # noqa: BLE001 - whatever the lab host's connection raises
            return self._refused(error, print_output)

    def _refused(self, error: Exception, print_output: bool) -> tuple[bool, CommandOutput]:
        # Not raised: pyinfra would show the message on one line, with its newlines escaped.
        lines = (str(error) or type(error).__name__).splitlines()
        for line in lines if print_output else ():
            echo(f"{self.host.print_prefix}{format_text(line, 'red')}", err=True)
        return False, CommandOutput([OutputLine("stderr", line) for line in lines])

    def _parcel(self) -> str:
        """A path on the lab host for a file on its way, in a folder for root alone."""
        folder = f"{self.node.state_dir}/run"
        made, output = self.carrier.run_shell_command(
            StringCommand("install", "-d", "-m", "700", shlex.quote(folder))
        )
        if not made:
            raise OSError(f"{folder}: {output.stderr}")
        return f"{folder}/parcel-{uuid.uuid4().hex}"

    def _drop(self, parcel: str) -> None:
        self.carrier.run_shell_command(StringCommand("rm", "-f", shlex.quote(parcel)))

    def put_file(
        self,
        filename_or_io: str | IOBase,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Upload a file, any bytes. OSError, quoting the node, if it did not arrive whole."""
        with _as_os_error():
            return self._put(filename_or_io, remote_filename, print_output, arguments)

    def _put(
        self,
        filename_or_io: str | IOBase,
        remote_filename: str,
        print_output: bool,
        arguments: dict[str, Any],
    ) -> bool:
        if self.way() == "none":
            return True
        parcel = self._parcel()
        try:
            self.carrier.put_file(filename_or_io, parcel)
            _, sized = self.carrier.run_shell_command(
                StringCommand("stat", "-c", "%s", shlex.quote(parcel))
            )
            # Not by the pid: it is 1 in a stopped root, and what a killed one left stays.
            script = _PUT.format(
                path=shlex.quote(remote_filename),
                size=int(sized.stdout),
                token=uuid.uuid4().hex[:12],
            )
            status, output = self._script(script, after=f"<{shlex.quote(parcel)}", **arguments)
        finally:
            self._drop(parcel)
        if not status:
            raise OSError(output.stderr or f"{remote_filename} was not written")
        if print_output:
            echo(f"{self.host.print_prefix}file uploaded: {remote_filename}", err=True)
        return True

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: str | IOBase,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Download a file, any bytes. OSError, quoting the node, if it cannot be read."""
        with _as_os_error():
            return self._get(remote_filename, filename_or_io, print_output, arguments)

    def _get(
        self,
        remote_filename: str,
        filename_or_io: str | IOBase,
        print_output: bool,
        arguments: dict[str, Any],
    ) -> bool:
        if self.way() == "none":
            raise OSError(f"{self.node.name} does not exist yet")
        parcel = self._parcel()
        try:
            path, quoted = shlex.quote(remote_filename), shlex.quote(parcel)
            status, output = self._script(
                f"[ -f {path} ] || {{ echo {path} is no file >&2; exit 1; }}; cat {path}",
                before="umask 077;",
                after=f">{quoted}",
                limits=outspoken.file_for(f"{self.node.state_dir}/run"),
                **arguments,
            )
            if not status:
                raise OSError(output.stderr or f"{remote_filename} cannot be read")
            self.carrier.get_file(parcel, filename_or_io)
        finally:
            self._drop(parcel)
        if print_output:
            echo(f"{self.host.print_prefix}file downloaded: {remote_filename}", err=True)
        return True

    def feed(self, script: str, path: str, seconds: int) -> tuple[bool, CommandOutput]:
        """Run a script in the node with a file of the lab host as its standard input."""
        try:
            return self._script(script, after=f"<{shlex.quote(path)}", _timeout=seconds)
        except Exception as error:  # noqa: BLE001
            return self._refused(error, False)

    def _script(
        self,
        script: str,
        before: str = "",
        after: str = "",
        limits: Limits = LIMITS,
        **arguments: Any,
    ) -> tuple[bool, CommandOutput]:
        control = extract_control_arguments(arguments)  # type: ignore[arg-type]
        unix_command = make_unix_command_for_host(
            self.state, self.host, StringCommand(script), **arguments
        )
        command = unix_command.get_raw_value()
        return self._run(command, False, before, after, limits, **control)
