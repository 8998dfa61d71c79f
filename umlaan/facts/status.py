"""The whole of a lab host's nodes in one look, for ``umlaan status``."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class Live(JsonFact):
    """rows, guests, tables, stamps; umlaan.agent.live says what they hold."""

    def command(self, agent: str, request: str) -> str:
        """request is JSON from umlaan.plan.status.question."""
        return f"{agent} live {shlex.quote(request)}"
