"""The run's end: the state that the procedure's own checks look at, read from both sides.

A check yields a command only where it failed, so that it never counts as a change.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra.context import host as context_host

from umlaan.agent.patience import summary
from umlaan.facts.verify import Verification
from umlaan.operations import pending
from umlaan.operations.common import agent_fact, compared, executing, fail, lab
from umlaan.operations.dvsup import seen
from umlaan.operations.node import row_of
from umlaan.operations.operation import operation
from umlaan.plan import node as node_plan
from umlaan.plan import verify as plan
from umlaan.run import current

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


@operation()
def both_sides() -> Generator[PyinfraCommand, None, None]:
    """Verify one node, for its @uml host: reachable, addresses, ping, DVS tree, a short exchange.

    What is there is noted for the last line at any time; the checks themselves run at execute.
    """
    run = current()
    wanted = lab().node(context_host.name.removeprefix("@uml/"))
    row = row_of(wanted)
    run.nodes[wanted.name] = node_plan.life(wanted, row)
    if not executing():
        return
    if pending.node_waits(wanted.host, f"{wanted.name}: its verification"):
        if run.nodes[wanted.name] == "absent":
            # This run has made its root ready; only its launch waits.
            run.nodes[wanted.name] = "down"
        return
    if row is None or not row["running"]:
        yield from fail(f"{wanted.name}: is not up")
        return
    dvs = lab().settings(context_host.name).dvs
    transport = node_plan.transport_of(wanted, row["kernel"])
    asked = plan.spec(lab(), wanted, dvs, transport)
    if asked["dvs"]:
        asked["dvs"]["compared"] = wanted.name in compared()
    asked["pairs"] = plan.pairs(lab(), wanted.number, seen())
    found = agent_fact(Verification, json.dumps(asked))
    rows = (found or {}).get("checks", [])
    run.tables.append(plan.table(wanted.name, rows))
    bad = plan.failures(wanted.name, rows) or ([] if rows else [f"{wanted.name}: no answer"])
    if bad:
        yield from fail("\n".join(summary(bad)))
        return
    # It answered all questions, though it may have been too busy for the first short look.
    run.nodes[wanted.name] = "up"
