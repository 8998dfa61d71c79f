"""The procedure's own checks of one node, read from both sides."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class Verification(JsonFact):
    """{"checks": [...]}: rows of what, host, guest, ok, detail."""

    def command(self, agent: str, spec: str) -> str:
        """spec is JSON from umlaan.plan.verify.spec."""
        return f"{agent} verify {shlex.quote(spec)}"
