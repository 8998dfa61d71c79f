"""Configuration fragments: read strictly, merged in order, conflicts told apart from choices."""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(r"^(?:CONFIG_(\w+)=(.+)|# CONFIG_(\w+) is not set)$")
_VALUE = re.compile(r'^(?:[ymn]|-?\d+|0x[0-9a-fA-F]+|"(?:[^"\\]|\\.)*")$')


class Conflict(NamedTuple):
    """An option that two fragments want differently; the later one wins."""

    name: str
    first: str
    first_file: str
    second: str
    second_file: str

    def __str__(self) -> str:
        return (
            f"CONFIG_{self.name}: {self.first} in {self.first_file}, "
            f"{self.second} in {self.second_file}; the later one wins"
        )


def fragment(name: str, text: str) -> dict[str, str]:
    """The options of a fragment. ValueError names file and line of what is none."""
    found: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        match = _LINE.match(line)
        if match:
            value = "n" if match[3] else match[2].strip()
            if not _VALUE.match(value):
                raise ValueError(f'{name}:{number}: {value!r} is not y, m, n, a number or "text"')
            found[match[1] or match[3]] = value
        elif line and not line.startswith("#"):
            raise ValueError(
                f"{name}:{number}: {line!r} is neither CONFIG_NAME=value, "
                "# CONFIG_NAME is not set nor a comment"
            )
    return found


def merge(
    fragments: list[tuple[str, str]], options: dict[str, str]
) -> tuple[dict[str, str], list[Conflict]]:
    """What is wanted in the end, and where fragments disagree. options have the last word.

    fragments are (file name, text). ValueError as in fragment().
    """
    wanted: dict[str, str] = {}
    origin: dict[str, str] = {}
    conflicts = []
    for name, text in fragments:
        for option, value in fragment(name, text).items():
            before = wanted.get(option)
            if before is not None and before != value and option not in options:
                conflicts.append(Conflict(option, before, origin[option], value, name))
            wanted[option], origin[option] = value, name
    return {**wanted, **options}, conflicts
