"""What of a toolchain is on a lab host: packages, build roots."""

from __future__ import annotations

import shlex

from pyinfra.api.facts import FactBase

from umlaan.facts.base import JsonFact


class MissingPackages(FactBase[list[str]]):
    """Those of some Debian packages that are not installed."""

    def command(self, packages: tuple[str, ...]) -> str:
        """One dpkg-query for all; an unknown package is a missing one."""
        names = " ".join(shlex.quote(name) for name in packages)
        form = "${binary:Package} ${db:Status-Status}\\n"
        return f"echo {names}; dpkg-query -W -f={shlex.quote(form)} {names} 2>/dev/null || true"

    def process(self, output: list[str]) -> list[str]:
        """The first line holds what was asked for, each other one a package and its status."""
        asked = output[0].split() if output else []
        there = {
            line.split()[0].partition(":")[0]
            for line in output[1:]
            if line.split()[1:] == ["installed"]
        }
        return [name for name in asked if name not in there]


class BuildRootState(JsonFact):
    """The stamp of a build root, null while it is not made."""

    def command(self, agent: str, folder: str) -> str:
        """A verb of the agent; folder is the build root's."""
        return f"{agent} buildroot --state {shlex.quote(folder)}"
