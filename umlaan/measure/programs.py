"""The measured programs of one case as commands for each side: templates filled in. Pure."""

from __future__ import annotations

import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass

from umlaan.measure.cases import Case
from umlaan.model.dvs import Dvs, Programs
from umlaan.model.measure import Measure

SERVER_NAME, CLIENT_NAME = "m3ftp_server", "m3ftp_client"


@dataclass(frozen=True)
class Tree:
    """The DVS tree as it stands on one side, and how a program there is let into the DC."""

    dest: str
    state: str
    run: str = "/run/umlaan"
    dcid: int = 0
    dc_pid: int | None = None
    nsenter: bool = False

    @property
    def enter(self) -> str:
        """What stands before a program so that it runs in the DC's PID namespace."""
        return f"nsenter -p -t {self.dc_pid} -- " if self.nsenter and self.dc_pid else ""


@dataclass(frozen=True)
class Endpoints:
    """The DVS endpoints of a case: the two that programs are told, and all that they bind."""

    server: int
    client: int
    server_all: tuple[int, ...]
    client_all: tuple[int, ...]

    @classmethod
    def of(cls, case: Case, measure: Measure) -> Endpoints:
        """Of the loops, which have them compiled in (0, 1 and two a child), or of m3ftp."""
        if case.test in ("message", "copy"):
            children = case.parameters.children or 1
            servers = tuple(range(0, 2 * children + 1, 2))
            return cls(0, 1, servers, tuple(n + 1 for n in servers))
        low, high = measure.programs.m3ftp_endpoints
        if case.server.number > case.client.number:
            low, high = high, low
        return cls(low, high, (low,), (high,))


@dataclass(frozen=True)
class Commands:
    """Fills the templates of one case in for one of its sides."""

    case: Case
    measure: Measure
    dvs: Dvs
    tree: Tree
    endpoints: Endpoints
    is_server: bool
    remote_address: str = ""
    address: str | None = None

    @property
    def programs(self) -> Programs:
        """The tree's own programs that are not measured."""
        return self.dvs.programs

    def names(self, **more: object) -> dict[str, object]:
        """Every name that has a value for this case and side."""
        case, p = self.case, self.case.parameters
        ours, theirs = case.server, case.client
        if not self.is_server:
            ours, theirs = theirs, ours
        values: dict[str, object | None] = {
            "dcid": self.tree.dcid,
            "dest": self.tree.dest,
            "state": self.tree.state,
            "run": self.tree.run,
            "server": case.server.number,
            "client": case.client.number,
            "cluster": self.dvs.cluster,
            "debug": self.dvs.debug,
            "node": ours.number,
            "name": ours.name,
            "address": self.address,
            "remote": theirs.number,
            "remote_name": theirs.name,
            "remote_address": self.remote_address,
            "server_ep": self.endpoints.server,
            "client_ep": self.endpoints.client,
            "size": p.size,
            "count": p.count,
            "children": p.children,
            "buffer": p.buffer,
            **more,
        }
        return {name: value for name, value in values.items() if value is not None}

    def program(self, folder: str, template: str, **more: object) -> str:
        """A program of the tree in its own folder, let into the DC, with its environment."""
        values = self.names(**more)
        words = self.environment(values)
        line = f"{self.tree.enter}{'env ' + ' '.join(words) + ' ' if words else ''}"
        return f"cd {shlex.quote(self.folder(folder))} && {line}{template.format(**values)}"

    def environment(self, values: Mapping[str, object]) -> list[str]:
        """NAME=VALUE words, quoted; a variable whose template has no value is left out."""
        out = []
        for name, template in {
            **self.programs.environment,
            **self.measure.programs.environment,
        }.items():
            needed = {n for _, n, _, _ in string.Formatter().parse(template) if n}
            if needed <= set(values):
                out.append(shlex.quote(f"{name}={template.format(**values)}"))
        return out

    def folder(self, folder: str) -> str:
        """A folder of the tree on this side; {server} and {client} in it are node numbers."""
        case = self.case
        named = folder.format(server=case.server.number, client=case.client.number)
        return f"{self.tree.dest}/{named}"

    def ready(self) -> str:
        """Exits 0 once every endpoint of the server is bound here."""
        return " && ".join(
            self.measure.programs.ready.format(**self.names(server_ep=endpoint))
            for endpoint in self.endpoints.server_all
        )

    def bind(self) -> str:
        """test_rmtbind of the other side's endpoint."""
        endpoint = self.endpoints.client if self.is_server else self.endpoints.server
        name = CLIENT_NAME if self.is_server else SERVER_NAME
        return self._test(self.programs.rmtbind, endpoint=endpoint, endpoint_name=name)

    def unbind(self, endpoint: int) -> str:
        """test_unbind of an endpoint, only where the table has it and no live program holds it.

        On the real DVS, one for an endpoint whose program just ended by itself can block for ever
        and take the node's whole DVK with it.
        """
        table = shlex.quote(f"{self.tree.state}/DC{self.tree.dcid}/procs")
        holder = f"awk -v e={endpoint} '$3 == e {{ split($4, p, \"/\"); print p[1] }}' {table}"
        command = self._test(self.programs.unbind, endpoint=endpoint)
        # A zombie that nobody reaps still has its folder in /proc.
        alive = 'grep -q "^State:[[:space:]]*[^ZX[:space:]]" "/proc/$p/status" 2>/dev/null'
        return f'p=$({holder}); [ -z "$p" ] || {alive} || ( {command} )'

    def _test(self, template: str, **more: object) -> str:
        return self.program(self.programs.add_node_dir, template, **more)
