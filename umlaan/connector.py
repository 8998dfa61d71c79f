"""``@uml/nodeN``: the root of a UML node as a pyinfra host, whichever way it can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyinfra.api.exceptions import InventoryError
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import CommandOutput


class UmlConnector(BaseConnector):
    """Rides on the lab host: chroot into a stopped node's root, ssh into a live one."""

    handles_execution = True

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """One host a name; InventoryError without one."""
        if not name:
            raise InventoryError("@uml needs a node's name: @uml/node1")
        yield f"@uml/{name}", {}, ["@uml"]

    def connect(self) -> None:
        """Nothing yet: the node may be one that this very run creates."""

    def run_shell_command(
        self, command: Any, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Not written yet."""
        raise NotImplementedError

    def put_file(self, *arguments: Any, **keywords: Any) -> bool:
        """Not written yet."""
        raise NotImplementedError

    def get_file(self, *arguments: Any, **keywords: Any) -> bool:
        """Not written yet."""
        raise NotImplementedError
