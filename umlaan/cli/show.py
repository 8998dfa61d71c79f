"""What a person sees: one console for output, one for messages, colours by state."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {
    "up": "green",
    "converged": "green",
    "booting": "yellow",
    "drifted": "yellow",
    "down": "bright_black",
    "absent": "bright_black",
    "unreachable": "red",
    "failed": "red",
}


@cache
def output() -> Console:
    """Where results go. Piped, it is as wide as its lines, so that scripts see whole ones."""
    wide = None if sys.stdout.isatty() else 500
    return Console(highlight=False, width=wide, soft_wrap=wide is not None)


@cache
def errors() -> Console:
    """Where messages go."""
    return Console(stderr=True, highlight=False)


def hint(text: str) -> None:
    """Say what to do next, on standard error so that results stay clean."""
    errors().print(text, style="dim", markup=False, soft_wrap=True)


def table(*columns: str) -> Table:
    """An empty table in the command's one style."""
    from rich import box
    from rich.table import Table

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in columns:
        found.add_column(name)
    return found


def coloured(state: str) -> str:
    """A state in its colour, as rich markup."""
    return f"[{COLOURS.get(state, 'white')}]{state}[/]"


def size(count: float | None) -> str:
    """Bytes as a person reads them; a dash for unknown."""
    if count is None:
        return "-"
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "KB", "MB") else f"{count:.1f} {unit}"
        count /= 1000
    return "-"


def span(seconds: float | None) -> str:
    """Seconds as a person reads them: 42 s, 3 min, 2 h 05, 4 d."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172800:
        return f"{whole // 3600} h {whole % 3600 // 60:02d}"
    return f"{whole // 86400} d"
