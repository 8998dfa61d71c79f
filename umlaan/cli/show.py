"""What a person sees: one console for output, one for messages, colours by state."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from umlaan.agent.visible import visible, word

if TYPE_CHECKING:
    from pydantic import BaseModel
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


class Screen(Console):
    """A console on which nothing that others said is obeyed: not by rich, not by the terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """What is to be printed, made visible; only rich's own styles and controls stay."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(visible(part.text), part.style)


@cache
def output() -> Console:
    """Where results go. Piped, it is as wide as its lines, so that scripts see whole ones."""
    wide = None if sys.stdout.isatty() else 500
    return Screen(highlight=False, width=wide, soft_wrap=wide is not None)


@cache
def errors() -> Console:
    """Where messages go."""
    return Screen(stderr=True, highlight=False)


def plain(text: object) -> str:
    """Somebody's word in a line of rich markup: it is one word, and no markup."""
    return escape(word(text))


def as_json(model: BaseModel, indent: int | None = 1) -> str:
    """A report as JSON in ASCII: whatever stands in it, a terminal that shows it is not steered."""
    return json.dumps(model.model_dump(mode="json"), indent=indent)


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
