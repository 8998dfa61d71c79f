"""Which snapshots of nodes' roots there are."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class Snapshots(JsonFact):
    """{node: [stamp with name and disk, the oldest first]}."""

    def command(self, agent: str, request: str) -> str:
        """request is JSON from umlaan.plan.snapshot.question."""
        return f"{agent} snapshot list {shlex.quote(request)}"
