"""What of a toolchain is on a lab host: packages, build roots."""

from __future__ import annotations

import shlex

from pyinfra.api.facts import FactBase

from umlaan.facts.base import JsonFact


class MissingPackages(FactBase[list[str]]):
    """Those of some Debian packages that are not installed.

    "libc6-i386 [amd64]" counts only on a machine of that architecture, as in Debian's own files.
    """

    def command(self, packages: tuple[str, ...]) -> str:
        """One dpkg-query for all; an unknown package is a missing one."""
        names = " ".join(shlex.quote(name.partition(" ")[0]) for name in packages)
        words = " ".join(name.replace(" [", ":").rstrip("]") for name in packages)
        form = "${binary:Package} ${db:Status-Status}\\n"
        return (
            f"echo {shlex.quote(words)}; dpkg --print-architecture; "
            f"dpkg-query -W -f={shlex.quote(form)} {names} 2>/dev/null || true"
        )

    def process(self, output: list[str]) -> list[str]:
        """What was asked for, the architecture, then a package and its status a line."""
        if len(output) < 2:
            return []
        machine = output[1].strip()
        there = {
            line.split()[0].partition(":")[0]
            for line in output[2:]
            if line.split()[1:] == ["installed"]
        }
        asked = [word.partition(":") for word in output[0].split()]
        return [n for n, _, only in asked if only in ("", machine) and n not in there]


class BuildRootState(JsonFact):
    """The stamp of a build root, null while it is not made."""

    def command(self, agent: str, folder: str) -> str:
        """A verb of the agent; folder is the build root's."""
        return f"{agent} buildroot --state {shlex.quote(folder)}"
