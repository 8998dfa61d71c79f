"""What the cases of one run share: the nodes that take part, and how a case fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from umlaan.measure.cases import Case
from umlaan.measure.ledger import End
from umlaan.measure.programs import Commands, Endpoints, Tree
from umlaan.measure.sides import Side
from umlaan.model.dvs import Dvs
from umlaan.model.measure import Measure


class CaseFailed(Exception):
    """The case is no figure; the message is the row's reason, in one line.

    ended is False where a client may still run: then nothing that it holds may be unbound.
    """

    def __init__(self, reason: str, *, ended: bool = True) -> None:
        super().__init__(reason)
        self.ended = ended


@dataclass(frozen=True)
class Peer:
    """One node while it is measured: how to run there, what it runs, where its tree stands."""

    side: Side
    end: End
    address: str
    tree: Tree
    transport: str | None = None
    mtu: int = 1500
    ssh: tuple[str, ...] = ()
    target: str = ""
    # The same place, with the lab's ssh key lent to it; None where it has the key itself.
    lent: Side | None = None

    @property
    def name(self) -> str:
        """node1."""
        return self.end.name


@dataclass
class Bench:
    """Everything that the cases of one run share."""

    measure: Measure
    dvs: Dvs
    peers: Mapping[int, Peer]
    run: str
    lab: str
    host: str
    say: Callable[[str], None] = lambda text: None
    load: Callable[[], float] = lambda: os.getloadavg()[0]
    cpus: int = os.cpu_count() or 1
    sources: dict[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Both sides of one case, each with its commands."""

    server: Peer
    client: Peer
    at_server: Commands
    at_client: Commands

    @classmethod
    def of(cls, bench: Bench, case: Case) -> Pair:
        """The peers of a case."""
        server, client = bench.peers[case.server.number], bench.peers[case.client.number]
        ends = Endpoints.of(case, bench.measure)
        both = [
            Commands(
                case,
                bench.measure,
                bench.dvs,
                own.tree,
                ends,
                own is server,
                other.address,
                own.address,
            )
            for own, other in ((server, client), (client, server))
        ]
        return cls(server, client, *both)
