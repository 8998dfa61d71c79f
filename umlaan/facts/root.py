"""What stands at the nodes' roots, and which base images are there."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class Roots(JsonFact):
    """{"bases": {key: ready}, "nodes": {name: {kind, made_from, key, type}}}."""

    def command(self, agent: str, spec: str) -> str:
        """spec is JSON from umlaan.plan.root.spec."""
        return f"{agent} root state {shlex.quote(spec)}"
