"""docs/data.md from the models themselves: every key, its type, default and meaning.

``python -m umlaan.plan.reference > docs/data.md`` writes it anew; a test holds the two together.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from umlaan.model.base import COMMAND
from umlaan.model.lab import Settings

_HEAD = """\
# The lab's data

Every key that `group_data/`, a host's tuple in `inventory.py` and `--data KEY=VALUE` may hold. A
host's own tuple wins over its groups, the last group over the ones before, they over
`group_data/all.py`; `--data` wins over all. A key with a dot changes one entry and keeps the rest:
`--data node.mem=512M`, `("@uml/node2", {"kernel.options": {"HZ_100": "y"}})`. An unknown key is an
error that names its place and what is allowed.

A value is judged before anything is done, and what is not allowed in it is said with its place.
Text is data: none of it is run, whatever it holds. Only what the tables below call a command is
run, by a shell, as it stands. Nothing of yours (root, disks, sources, overlays, patches,
`node.hostfs`, the ledger) may lie in `state_dir` or `cache_dir`, nor they in a source or in
`node.hostfs`, by whatever link. A `state_dir` is the lab's by `lab.json` in it, which is made only
where there was nothing: [whose folder it is](nodes.md#whose-folder-it-is).

Often used:

```
--data kernel=ready:package:user-mode-linux     # Debian's ready UML kernel: nothing is compiled
--data dvs.source=/usr/src/dvs                  # your DVS tree (dvs.steps names its makes)
--data root=/dev/sdb6                           # your partition, never formatted
--data network.namespace=null                   # the procedure's way: on the host itself
```

This page is written from the models by `python -m umlaan.plan.reference`.
"""


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in models_in(part)]


def type_word(annotation: Any, metadata: Any = ()) -> str:
    """A type as a user would say it; a command is what a shell runs."""
    origin = get_origin(annotation)
    if COMMAND in metadata:
        return COMMAND
    if origin is typing.Annotated:
        return type_word(get_args(annotation)[0], get_args(annotation)[1:])
    if origin is Literal:
        return ", ".join(repr(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(type_word(part) for part in get_args(annotation))
    if origin is tuple:
        return f"list of {type_word(get_args(annotation)[0])}"
    if origin is dict:
        return f"dictionary to {type_word(get_args(annotation)[1])}"
    if annotation is type(None):
        return "None"
    words = {"str": "text", "int": "number", "bool": "True or False", "float": "number"}
    name = getattr(annotation, "__name__", str(annotation))
    return words.get(name, name)


def default_word(field: FieldInfo) -> str:
    """The default as it would be written, or that it must be given."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "(must be given)"
    if isinstance(value, BaseModel):
        return "(below)"
    if isinstance(value, tuple):
        value = list(value)
    text = repr(value) if not hasattr(value, "is_private") else repr(str(value))
    return f"`{text}`" if len(text) <= 90 else "(see the model)"


def table_of(model: type[BaseModel], prefix: str) -> tuple[list[str], list[tuple[str, Any]]]:
    """Rows of one model, and the models below it with their prefixes."""
    rows, below = [], []
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        kind = type_word(field.annotation, field.metadata).replace("|", "\\|")
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {kind} | {default_word(field)} | {meaning} |")
        below += [(f"{prefix}{name}.", one) for one in inner]
    return rows, below


def reference() -> str:
    """The whole page."""
    lines = [_HEAD]
    todo: list[tuple[str, type[BaseModel]]] = [("", Settings)]
    done: set[type[BaseModel]] = set()
    while todo:
        prefix, model = todo.pop(0)
        if model in done:
            lines += [f"## `{prefix[:-1]}`: the same keys as another {model.__name__}", ""]
            continue
        done.add(model)
        rows, below = table_of(model, prefix)
        title = f"`{prefix[:-1]}`: {model.__name__}" if prefix else "Top level"
        about = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        about = " ".join(about.split())
        head = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [f"## {title}", "", about, "", *head, *rows, ""]
        todo += below
    return "\n".join(lines)


if __name__ == "__main__":
    print(reference(), end="")
