"""What a node's root holds of its identity, of the DVS and of its kernel; asked of the node."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from umlaan.facts.base import JsonFact, ask
from umlaan.plan import look

if TYPE_CHECKING:
    from pyinfra.api.host import Host


class GuestLook(FactBase[look.Look]):
    """All that a run compares inside a node, in one command of few processes."""

    def command(self, dest: str | None) -> str:
        """dest is where the DVS tree stands, None without one."""
        return look.script(dest)

    def process(self, output: list[str]) -> look.Look:
        """A Look; an empty machine is one without any file."""
        try:
            return look.parse(output)
        except look.NoLook as fault:
            raise FactProcessError(f"what it says of its files is not taken: {fault}") from None


def look_into(host: Host, dest: str | None) -> look.Look | None:
    """GuestLook, asked once as long as nothing else is run in it; None of one that is not yet."""
    connector: Any = host.connector
    known = connector.recall(f"look {dest}")
    if known is None:
        known = ask(host, GuestLook, dest, _timeout=connector.look_seconds())
        connector.keep(f"look {dest}", known)
    return known  # type: ignore[no-any-return]


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


class Space(FactBase["tuple[int, int] | None"]):
    """(free bytes, free inodes) of the file system that holds a path of the node."""

    def command(self, path: str) -> str:
        """The nearest folder that exists is asked."""
        return look.space_script(path)

    def process(self, output: list[str]) -> tuple[int, int] | None:
        """None where the node does not exist yet."""
        return look.parse_space(output)
