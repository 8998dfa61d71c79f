"""What umlaan left in a lab's state folder."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class Standing(JsonFact):
    """Whose the state folder is: [kind, why it is refused], as ``umlaan.agent.mark`` says it."""

    def command(self, agent: str, lab: str, folder: str) -> str:
        """The lab that asks, and the folder."""
        return f"{agent} mark state {shlex.quote(lab)} {shlex.quote(folder)}"


class Leftovers(JsonFact):
    """Names of ours below the state folder."""

    def command(self, agent: str, spec: str) -> str:
        """spec is JSON: state_dir."""
        return f"{agent} remove list {shlex.quote(spec)}"


class Strays(JsonFact):
    """Nodes that run although the inventory no longer names them."""

    def command(self, agent: str, spec: str) -> str:
        """spec is JSON: state_dir, known (names)."""
        return f"{agent} remove strays {shlex.quote(spec)}"
