"""What the nodes of a lab host are doing: up, down, since when, with which command line."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from umlaan.facts.base import JsonFact, ask_agent
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.plan.node import question

if TYPE_CHECKING:
    from pyinfra.api.host import Host


class NodeStates(JsonFact):
    """{name: row} of many nodes at once; umlaan.agent.node.state says what a row holds."""

    def command(self, agent: str, request: str) -> str:
        """request is JSON from umlaan.plan.node.question."""
        return f"{agent} node-state {shlex.quote(request)}"


def node_rows(
    on: Host, lab: Lab, nodes: tuple[Node, ...], memory: bool = False, reach: bool = True
) -> dict[str, dict[str, Any]]:
    """The rows of nodes of one lab host, by name. NoAnswer if it does not say."""
    return ask_agent(on, NodeStates, json.dumps(question(lab, nodes, memory, reach))) or {}
