"""What a node's root holds of its identity and of the DVS, asked of the node itself."""

from __future__ import annotations

import base64
import io
import shlex
import tarfile
from typing import Any

from pyinfra.api.facts import FactBase

from umlaan.facts.base import JsonFact
from umlaan.plan.guest import ASKED, PROBES, Found


class GuestFiles(FactBase[Found]):
    """The files of the guest's identity, content and mode, in one command of few processes."""

    def command(self) -> str:
        """tar and base64 carry any bytes; what is missing is left out."""
        asked = " ".join(ASKED)
        probes = " ".join(PROBES)
        return (
            f"cd /; tar --ignore-failed-read -cf - {asked} 2>/dev/null | base64 -w0; echo; "
            f"ls -d {probes} 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> Found:
        """Found; an empty machine is one without any file."""
        files: dict[str, tuple[int, bytes]] = {}
        first = output[0] if output else ""
        if first:
            with tarfile.open(fileobj=io.BytesIO(base64.b64decode(first))) as archive:
                for member in archive:
                    taken = archive.extractfile(member) if member.isfile() else None
                    if taken is not None:
                        files[member.name] = (member.mode & 0o7777, taken.read())
        return Found(files, frozenset(line.strip() for line in output[1:] if line.strip()))


class Tree(FactBase[dict[str, list[Any]]]):
    """{path: [kind, executable, content]} of a folder in the node; empty if it is not there."""

    def command(self, path: str) -> str:
        """Three processes: hashes, then links, then executable files."""
        folder = shlex.quote(path)
        return (
            f"cd {folder} 2>/dev/null || exit 0; find . -type f -exec sha256sum {{}} +; "
            "echo; find . -type l -printf '%P\\t%l\\n'; "
            "echo; find . -type f -perm -u+x -printf '%P\\n'; "
            "echo; find . -mindepth 1 -type d -printf '%P\\n'"
        )

    @staticmethod
    def default() -> dict[str, list[Any]]:
        """No such folder."""
        return {}

    def process(self, output: list[str]) -> dict[str, list[Any]]:
        """Sections are parted by empty lines."""
        rows: dict[str, list[Any]] = {}
        section = 0
        for line in output:
            if not line:
                section += 1
            elif section == 0:
                digest, _, name = line.partition("  ")
                rows[name.removeprefix("./")] = ["file", False, digest.lstrip("\\")]
            elif section == 1:
                name, _, target = line.partition("\t")
                rows[name] = ["link", False, target]
            elif section == 2:
                rows.setdefault(line, ["file", True, ""])[1] = True
            else:
                rows[line] = ["dir", False, ""]
        return rows


class LabSecrets(JsonFact):
    """The lab's keys, read on the lab host: {authorised_key, host_key, host_key_public}."""

    def command(self, agent: str, spec: str) -> str:
        """spec is JSON: dir, node."""
        return f"{agent} keys read {shlex.quote(spec)}"


class TreeStamp(JsonFact):
    """{"manifest", "bytes"} of the guest's variant, as built on the lab host; or null."""

    def command(self, agent: str, path: str) -> str:
        """path is the variant's stamp on the lab host."""
        return f"{agent} dvs stamp {shlex.quote(path)}"


class Space(FactBase[tuple[int, int]]):
    """(free bytes, free inodes) of the file system that holds a path of the node."""

    def command(self, path: str) -> str:
        """The nearest folder that exists is asked."""
        return (
            f'd={shlex.quote(path)}; while [ ! -d "$d" ]; do d=$(dirname "$d"); done; '
            'df -B1 --output=avail,iavail "$d"'
        )

    def process(self, output: list[str]) -> tuple[int, int]:
        """The last line has the figures; "-" for inodes means that they never run out."""
        free, inodes = output[-1].split()
        return int(free), int(inodes) if inodes.isdigit() else 1 << 40
