"""What stands of a kernel on a lab host, and what it would be built from now."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class KernelState(JsonFact):
    """inputs, key, faults, stamp, previous, artifact, cached: see umlaan/agent/kernel_state.py."""

    def command(self, agent: str, word: str) -> str:
        """One verb of the agent; word is the encoded spec."""
        return f"{agent} kernel-state {shlex.quote(word)}"


class Brought(JsonFact):
    """stamp and artifact of a kernel's folder that a builder's artifacts are brought to."""

    def command(self, agent: str, folder: str, cache: str) -> str:
        """One verb of the agent."""
        return f"{agent} bring state {shlex.quote(folder)} {shlex.quote(cache)}"
