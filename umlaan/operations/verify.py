"""The run's end: the state that the procedure's own checks look at, read from both sides.

A check yields a command only where it failed, so that it never counts as a change.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra.api.operation import operation
from pyinfra.context import host as context_host

from umlaan.facts.node import NodeStates
from umlaan.facts.verify import Verification
from umlaan.operations.common import agent_fact, executing, fail, lab
from umlaan.plan import verify as plan
from umlaan.run import current

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


@operation()
def node(**_: object) -> Generator[PyinfraCommand, None, None]:
    """Verify one node, for its @uml/… host: reachable, addresses, ping, DVS tree, a short exchange.

    What is there is noted for the last line at any time; the checks themselves run at execute.
    """
    run = current()
    wanted = lab().node(context_host.name.removeprefix("@uml/"))
    run.nodes[wanted.name] = node_state(wanted)
    if not executing():
        return
    settings = lab().settings(context_host.name)
    found = agent_fact(Verification, json.dumps(plan.spec(lab(), wanted, settings.dvs)))
    rows = (found or {}).get("checks", [])
    run.tables.append(plan.table(wanted.name, rows))
    bad = plan.failures(wanted.name, rows) or ([] if rows else [f"{wanted.name}: no answer"])
    if bad:
        yield from fail("\n".join(bad))
