"""Which inventory and which overriding data a command was given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chosen:
    """What -i and --data say."""

    inventory: str | None = None
    data: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The inventory to read."""
        return self.inventory or "inventory.py"

    def words(self) -> list[str]:
        """The --data options for pyinfra's own command line."""
        return [word for item in self.data for word in ("--data", item)]
