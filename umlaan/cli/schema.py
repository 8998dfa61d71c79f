"""``umlaan schema``: the JSON schema of what a verb prints with --json."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from umlaan.cli.fault import Fault
from umlaan.cli.show import output
from umlaan.model.outputs import OUTPUTS


def command(
    verb: Annotated[str | None, typer.Argument(metavar="[VERB]")] = None,
) -> int:
    """Print the JSON schema of a verb's --json; without a verb, list those that have one.

    Example: [bold]umlaan schema status > status.schema.json[/]
    """
    if verb is None:
        output().print("\n".join(OUTPUTS))
        return 0
    if verb not in OUTPUTS:
        raise Fault(f"{verb} has no schema; these have: {', '.join(OUTPUTS)}", code=64)
    print(text_of(verb), end="")
    return 0


def text_of(verb: str) -> str:
    """The schema as docs/schemas holds it."""
    schema = OUTPUTS[verb].model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
