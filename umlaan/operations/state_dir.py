"""The lab's state folder: removed by destroy, and only what umlaan made in it."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra.api.command import QuoteString

from umlaan.facts.state_dir import Leftovers, Strays
from umlaan.operations.common import agent_command, agent_fact, carrier, lab, lab_host, why
from umlaan.operations.operation import operation

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


@operation()
def strays() -> Generator[PyinfraCommand, None, None]:
    """Stop nodes of this lab that run although they left the inventory; their roots stay."""
    where = lab_host()
    known = [node.name for node in lab().nodes_on(carrier().name)]
    spec = json.dumps({"state_dir": where.state_dir, "known": known})
    for order in agent_fact(Strays, spec) or []:
        why(f"{order['name']}: stop, it runs and is no longer in the inventory")
        yield agent_command("node-stop", QuoteString(json.dumps(order)), live=True)


@operation()
def removed() -> Generator[PyinfraCommand, None, None]:
    """Remove images, kernels, builds, keys and logs of this lab; caches and all else stay."""
    where = lab_host()
    spec = json.dumps({"state_dir": where.state_dir})
    found = agent_fact(Leftovers, spec)
    if not found:
        return
    why(f"state folder {where.state_dir}: remove {', '.join(found)}")
    yield agent_command("remove", "do", QuoteString(spec), live=True)
