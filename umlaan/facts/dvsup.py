"""The DVS of several sides at once, host and guests: tables, DCs, services, scripts."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class DvsSides(JsonFact):
    """{name: view}: see umlaan.agent.dvslook. A side that does not answer says so."""

    def command(self, agent: str, order: str) -> str:
        """order is JSON: {"sides": [side, …]} from umlaan.plan.dvssides."""
        return f"{agent} dvsup look {shlex.quote(order)}"
