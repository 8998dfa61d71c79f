"""What all models share: strictness, and the spelled forms that several nouns use."""

from __future__ import annotations

import re
import string
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints


class Model(BaseModel):
    """A noun of the lab: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path, for example /usr/src/linux")
    if "\0" in value or "\n" in value:
        raise ValueError("must be one line without NUL bytes")
    return value.rstrip("/") or "/"


_SIZE = re.compile(r"^(\d+)([KMGT]?)$")
_UNIT = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size_bytes(text: str) -> int:
    """Bytes in a size as the kernel's command line spells it ("1024M"). ValueError if not one."""
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError("must be a number with K, M, G or T after it, for example 1024M")
    return int(match.group(1)) * _UNIT[match.group(2)]


def _size(value: str) -> str:
    size_bytes(value)
    return value.strip()


def _number_as_text(value: Any) -> Any:
    """--data size=65536 reaches us as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


AbsPath = Annotated[str, AfterValidator(_absolute)]
Size = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_size)]
# The kernel's IFNAMSIZ is 16 with the NUL.
IfName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]
NameStr = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
OneLine = Annotated[str, StringConstraints(pattern=r"^[^\n\x00]*$")]
Suite = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9.-]*$")]
Below = Annotated[str, StringConstraints(pattern=r"^[^/\n\x00][^\n\x00]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def known_names(value: object, allowed: set[str]) -> object:
    """A command, or a dictionary of them, whose {names} are all allowed. ValueError if not."""
    for text in value.values() if isinstance(value, dict) else [value]:
        if not isinstance(text, str):
            continue
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(text) if name}
        except ValueError as error:
            raise ValueError(f"{error}; a brace of the command itself is doubled") from None
        if unknown := names - allowed:
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
