"""What all models share: strictness, and the spelled forms that several nouns use."""

from __future__ import annotations

import posixpath
import re
import string
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints


class Model(BaseModel):
    """A noun of the lab: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# What ends a line, moves the cursor, turns the text around, or is no character at all.
_CONTROL = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
# One argument of a command has at most 128 KiB; nothing that is typed comes near.
LONGEST = 8192
# PATH_MAX and NAME_MAX of the kernel, in bytes.
_PATH_BYTES, _NAME_BYTES = 4095, 255
_OWN_PATH = re.compile(r"[\w./+@=~-]*")
_VARIABLE = re.compile(r"\$\([A-Za-z_][A-Za-z0-9_]*\)")


def _one_line(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must be one line of text, without control characters")
    if len(value.encode()) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} bytes")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path, for example /usr/src/linux")
    _one_line(value)
    # Repeated and ending slashes, and "/./", name the same place; two paths are compared as text.
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError('must not go up again ("/../"): name the place itself')
    path = "/" + "/".join(parts)
    if len(path.encode()) > _PATH_BYTES or any(len(p.encode()) > _NAME_BYTES for p in parts):
        raise ValueError(
            f"is too long: a path has at most {_PATH_BYTES} bytes, each name in it {_NAME_BYTES}"
        )
    return path


def _own(value: str) -> str:
    # A folder that umlaan makes: what is given is not looked up, so no link is in the way.
    value = _absolute(posixpath.normpath(value)) if value.startswith("/") else _absolute(value)
    if not _OWN_PATH.fullmatch(value):
        raise ValueError(
            "must be made of letters, digits and / . _ - + @ = ~ (umlaan puts it into command "
            "lines, units and scripts)"
        )
    return value


def _word(value: str) -> str:
    if any(c.isspace() or c == '"' for c in value):
        raise ValueError(
            "must be without blanks and quotes, at which the kernel's command line is split; "
            "make a link to it without them and name that"
        )
    return value


def _disk(value: str) -> str:
    # UML takes these for separators inside ubda=.
    if any(c in value for c in ",:"):
        raise ValueError(
            "must be without , and : (UML reads them in a disk's path as separators); make a link "
            "to it without them and name that"
        )
    return _word(value)


def _below(value: str) -> str:
    _one_line(value)
    if value.startswith("/") or not value or ".." in value.split("/"):
        raise ValueError('must be a path inside the tree, without / in front and without ".."')
    return value


def _make_value(value: str) -> str:
    if any(c in "$`;|&<>" for c in _VARIABLE.sub("", _one_line(value))):
        raise ValueError(
            "must be without ; & | < > ` and $, which make and its shell would run; only "
            "$(NAME) of the makefile's own variables is allowed"
        )
    return value


# int() and \d would take any script's digits, and one of 5,000 digits takes its time.
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)")
_UNIT = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LEAST_MEMORY, _LEAST_IMAGE = 16 << 20, 64 << 20


def size_bytes(text: str) -> int:
    """Bytes in a size as the kernel's command line spells it ("1024M"). ValueError if not one."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError("must be a number with K, M, G or T after it, for example 1024M")
    return int(match.group(1)) * _UNIT[match.group(2)]


def _size(value: str) -> str:
    size_bytes(value)
    return value.strip()


def _at_least(bytes_: int) -> AfterValidator:
    def check(value: str) -> str:
        if size_bytes(value) < bytes_:
            raise ValueError(f"must be {bytes_ >> 20}M or more, for example 1024M")
        return value

    return AfterValidator(check)


def _number_as_text(value: Any) -> Any:
    """--data size=65536 reaches us as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _name(pattern: str, allowed: str) -> AfterValidator:
    """One word for a program: nothing that it takes for an option or a shell for its own."""
    known = re.compile(pattern)

    def check(value: str) -> str:
        if not known.fullmatch(_one_line(value)):
            raise ValueError(f"must be {allowed}")
        return value

    return AfterValidator(check)


AbsPath = Annotated[str, AfterValidator(_absolute)]
# Where umlaan makes files of its own, and a path that a template of the user's names.
OwnPath = Annotated[str, AfterValidator(_own)]
WordPath = Annotated[AbsPath, AfterValidator(_word)]
DiskPath = Annotated[AbsPath, AfterValidator(_disk)]
Size = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_size)]
Memory = Annotated[Size, _at_least(_LEAST_MEMORY)]
ImageSize = Annotated[Size, _at_least(_LEAST_IMAGE)]
# The kernel's IFNAMSIZ is 16 with the NUL.
IfName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]
NameStr = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_.-]{0,31}$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
OneLine = Annotated[str, AfterValidator(_one_line)]
# Text that a shell runs: a command by what it is for, all else is data and never run.
COMMAND = "command"
Command = Annotated[str, AfterValidator(_one_line), COMMAND]
OwnTemplate = Annotated[
    str, _name(r"[\w./+@=~{}-]*", "letters, digits, {names} and / . _ - + @ = ~")
]
MakeValue = Annotated[str, AfterValidator(_make_value)]
Target = Annotated[
    str,
    _name(
        r"[A-Za-z0-9_./%+@][A-Za-z0-9_./%+@-]*",
        "a make target: letters, digits and . _ / % + @ -, no - in front",
    ),
]
Package = Annotated[
    str,
    _name(
        r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9]+)?(=[A-Za-z0-9.+~:-]+)?",
        "the name of a Debian package, for example gdb",
    ),
]
Mirror = Annotated[
    str,
    _name(
        r"(https?|ftp|file|copy):/[A-Za-z0-9._~:/@%+=,-]+",
        "a mirror's URL, for example http://deb.debian.org/debian",
    ),
]
Suite = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9.-]*$")]
Below = Annotated[str, AfterValidator(_below)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def known_names(value: object, allowed: set[str]) -> object:
    """A command, or a dictionary of them, whose {names} are all allowed. ValueError if not."""
    for text in value.values() if isinstance(value, dict) else [value]:
        if not isinstance(text, str):
            continue
        try:
            parts = [part for part in string.Formatter().parse(text) if part[1] is not None]
        except ValueError as error:
            raise ValueError(f"{error}; a brace of the command itself is doubled") from None
        names = {f"{name}{form and f':{form}'}{how or ''}" for _, name, form, how in parts}
        if unknown := names - allowed:
            # {} and {node:>99} as well: a name stands alone.
            raise ValueError(f"unknown {{{min(unknown)}}}; allowed: {', '.join(sorted(allowed))}")
    return value


class DataError(Exception):
    """Bad data of the user's: one message that names the place, what was given, what is allowed."""


def with_dotted(data: dict[str, Any]) -> dict[str, Any]:
    """Lay "network.mtu"-like keys over the nested value they name; later keys win.

    pyinfra replaces whole values key by key; a dotted key changes one entry and keeps the rest.
    DataError where the value it reaches into is not a dictionary.
    """
    out: dict[str, Any] = {key: value for key, value in data.items() if "." not in key}
    for dotted, value in data.items():
        if "." not in dotted:
            continue
        head, *rest = dotted.split(".")
        node: Any = _copied(out.get(head), head)
        out[head] = node
        for part in rest[:-1]:
            node[part] = _copied(node.get(part), dotted)
            node = node[part]
        node[rest[-1]] = value
    return out


def _copied(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, str) and where.split(".")[0] in ("kernel", "host_kernel", "dvs"):
        return {"source": value}
    raise DataError(f"{where}: a dotted key needs a dictionary there, found {value!r}")
