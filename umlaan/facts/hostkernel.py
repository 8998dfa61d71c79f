"""The host kernel as it is installed and booted, and the modules built against it."""

from __future__ import annotations

import shlex

from umlaan.facts.base import JsonFact


class HostKernelState(JsonFact):
    """kernel, entry, problems, running, saved, next, trial: see umlaan/agent/hostkernel.py."""

    def command(self, agent: str, word: str) -> str:
        """One verb of the agent; word is the encoded spec."""
        return f"{agent} host-kernel state {shlex.quote(word)}"


class HostKernelLeft(JsonFact):
    """releases, files, running, state: what of ours stands there, see umlaan/agent/bootaway.py."""

    def command(self, agent: str, word: str) -> str:
        """One verb of the agent; word is the encoded spec."""
        return f"{agent} boot-away left {shlex.quote(word)}"


class HostModuleBuild(JsonFact):
    """inputs, key, previous, cached, problem of one module where it is built."""

    def command(self, agent: str, word: str) -> str:
        """One verb of the agent; word is the encoded spec."""
        return f"{agent} module build-state {shlex.quote(word)}"


class HostModuleState(JsonFact):
    """stamp, here, problems, load, running of a module on the lab host: umlaan/agent/placed.py."""

    def command(self, agent: str, word: str) -> str:
        """One verb of the agent; word is the encoded spec."""
        return f"{agent} module state {shlex.quote(word)}"


class HostModulesLeft(JsonFact):
    """Files that modules of the lab left outside its state folder: umlaan/agent/placed.py."""

    def command(self, agent: str, word: str) -> str:
        """One verb of the agent; word is the encoded spec."""
        return f"{agent} module left {shlex.quote(word)}"
