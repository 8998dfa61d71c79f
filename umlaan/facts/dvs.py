"""What is there of the DVS: source, built variants, tarball."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class DvsBuilds(JsonFact):
    """Source hash, and a variant a row: key, stamp, drift, tarball."""

    def command(self, agent: str, spec: str) -> str:
        """spec is umlaan.plan.dvs.spec, encoded by umlaan.agent.spec."""
        return f"{agent} dvs state {shlex.quote(spec)}"
