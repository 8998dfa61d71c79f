"""Which of the lab's ssh keys are missing."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class MissingKeys(JsonFact):
    """Names of the keys that are not there."""

    def command(self, agent: str, spec: str) -> str:
        """spec is JSON: dir, lab, nodes."""
        return f"{agent} keys state {shlex.quote(spec)}"
