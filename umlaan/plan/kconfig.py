"""Configuration fragments: read strictly, merged in order, conflicts told apart from choices.

The option behind a line ``# [kernels >= 5.19, < 6.2]`` is asked for only of those kernels: that it
came with one version and went with another is data too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(r"^(?:CONFIG_(\w+)=(.+)|# CONFIG_(\w+) is not set)$")
_VALUE = re.compile(r'^(?:[ymn]|-?\d+|0x[0-9a-fA-F]+|"(?:[^"\\]|\\.)*")$')


_RANGE = re.compile(r"^# \[kernels (.*)\]$")
_BOUND = re.compile(r"^(>=|<) (\d+(?:\.\d+)*)$")
# (since, until): the first kernel that has an option, the first that has it no more; "" is open.
Range = tuple[str, str]


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


class Fragment(NamedTuple):
    """The options of one file, and the kernels that some of them are for."""

    options: dict[str, str]
    ranges: dict[str, Range]


class Merged(NamedTuple):
    """What several fragments and the single options want together."""

    options: dict[str, str]
    ranges: dict[str, Range]
    conflicts: list[Conflict]


def _range(where: str, text: str) -> Range:
    bounds = {">=": "", "<": ""}
    for part in text.split(", "):
        match = _BOUND.match(part)
        if not match:
            raise ValueError(f"{where}: {part!r} is not >= 5.19 or < 6.2")
        bounds[match[1]] = match[2]
    return bounds[">="], bounds["<"]


def fragment(name: str, text: str) -> Fragment:
    """The options of a fragment. ValueError names file and line of what is none."""
    found: dict[str, str] = {}
    ranges: dict[str, Range] = {}
    only: Range | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        match = _LINE.match(line)
        if match:
            value = "n" if match[3] else match[2].strip()
            if not _VALUE.match(value):
                raise ValueError(f'{name}:{number}: {value!r} is not y, m, n, a number or "text"')
            option = match[1] or match[3]
            found[option] = value
            if only:
                ranges[option] = only
            only = None
        elif bounded := _RANGE.match(line):
            only = _range(f"{name}:{number}", bounded[1])
        elif line and not line.startswith("#"):
            raise ValueError(
                f"{name}:{number}: {line!r} is neither CONFIG_NAME=value, "
                "# CONFIG_NAME is not set nor a comment"
            )
    return Fragment(found, ranges)


def merge(fragments: list[tuple[str, str]], options: dict[str, str]) -> Merged:
    """What is wanted in the end, and where fragments disagree. options have the last word.

    fragments are (file name, text). ValueError as in fragment().
    """
    wanted: dict[str, str] = {}
    origin: dict[str, str] = {}
    ranges: dict[str, Range] = {}
    conflicts = []
    for name, text in fragments:
        read = fragment(name, text)
        for option, value in read.options.items():
            before = wanted.get(option)
            if before is not None and before != value and option not in options:
                conflicts.append(Conflict(option, before, origin[option], value, name))
            wanted[option], origin[option] = value, name
            ranges.pop(option, None)
        ranges |= read.ranges
    left = {option: only for option, only in ranges.items() if option not in options}
    return Merged({**wanted, **options}, left, conflicts)
