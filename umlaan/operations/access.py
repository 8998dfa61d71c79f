"""How the lab host enters its guests: an ssh key of the lab's own, a known host key a guest."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra.api.command import QuoteString

from umlaan.facts.access import MissingKeys
from umlaan.operations.common import agent_command, agent_fact, carrier, lab, lab_host, why
from umlaan.operations.operation import operation

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


@operation()
def keys() -> Generator[PyinfraCommand, None, None]:
    """The lab's key pair, a host key for each node it carries, and known_hosts.

    The keys never leave the lab host but for the halves that a guest's root needs.
    """
    where = lab_host()
    nodes = {node.name: str(node.address) for node in lab().nodes_on(carrier().name)}
    spec = json.dumps({"dir": f"{where.state_dir}/ssh", "lab": where.lab, "nodes": nodes})
    missing = agent_fact(MissingKeys, spec)
    if missing == []:
        return
    why(f"ssh keys: make {', '.join(missing or ['all'])}")
    yield agent_command("keys", "make", QuoteString(spec))
