"""What the nodes are now, for a run's last line; a look that never counts as a change."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra.context import host as context_host

from umlaan.facts.base import NoAnswer
from umlaan.facts.node import node_rows
from umlaan.inventory import is_uml
from umlaan.operations.common import carrier, fail, lab
from umlaan.operations.operation import operation
from umlaan.plan import node as plan
from umlaan.run import current

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


@operation()
def noted() -> Generator[PyinfraCommand, None, None]:
    """Note every node of this lab host, or this @uml host's own, for the last line.

    Fails if the lab host does not say.
    """
    run = current()
    nodes = lab().nodes_on(carrier().name)
    if is_uml(context_host):
        nodes = tuple(n for n in nodes if f"@uml/{n.name}" == context_host.name)
    rows, said = {}, "the lab host does not say what its nodes are doing"
    try:
        rows = node_rows(carrier(), lab(), nodes, reach=False) if nodes else {}
    except NoAnswer as error:
        said = str(error)
    for node in nodes:
        state = plan.life(node, rows.get(node.name))
        # Where down was asked for, a node that ended badly is down all the same.
        run.nodes[node.name] = "down" if (state, run.asked) == ("failed", "down") else state
    if len(rows) < len(nodes):
        yield from fail(said)
