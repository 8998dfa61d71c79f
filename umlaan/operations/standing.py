"""What the nodes are now, for a run's last line; a look that never counts as a change."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra.api.operation import operation

from umlaan.facts.node import node_rows
from umlaan.operations.common import carrier, fail, lab
from umlaan.plan import node as plan
from umlaan.run import current

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


@operation()
def noted() -> Generator[PyinfraCommand, None, None]:
    """Note every node of this lab host for the last line. Fails if the lab host does not say."""
    nodes = lab().nodes_on(carrier().name)
    rows = node_rows(carrier(), lab(), nodes, reach=False) if nodes else {}
    for node in nodes:
        current().nodes[node.name] = plan.life(node, rows.get(node.name))
    if len(rows) < len(nodes):
        yield from fail("the lab host does not say what its nodes are doing")
