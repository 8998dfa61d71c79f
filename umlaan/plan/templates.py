"""The files under templates/, filled in. A name that a template uses must be given."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).resolve().parent.parent.parent / "templates"


_UNIT_WORD = re.compile(r"[\w@%+=:,./~-]+")


def unit_word(value: object) -> str:
    """One word of a unit file: blanks and quotes kept in it, no specifier, no variable."""
    text = str(value).replace("%", "%%")
    if _UNIT_WORD.fullmatch(text):
        return text
    if not text.isprintable():
        raise ValueError(f"{text!r} cannot stand in a unit file")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What a template names is one word of the language that it is written in.
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    environment.filters["unit"] = unit_word
    return environment


def render(name: str, **values: Any) -> str:
    """The text of ``templates/NAME`` with these values."""
    return _environment().get_template(name).render(**values)
