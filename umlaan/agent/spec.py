"""What is to be built, as JSON: made by the plan, handed to the agent as one word or as a file."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from typing import Any

from umlaan.agent.files import write_json


def encode(spec: dict[str, Any]) -> str:
    """The spec as one word for a command line: short, and free of quoting."""
    text = json.dumps(spec, sort_keys=True).encode()
    return base64.urlsafe_b64encode(zlib.compress(text, 9)).decode()


def decode(word: str) -> dict[str, Any]:
    """The spec from its word. ValueError if it is none."""
    try:
        spec = json.loads(zlib.decompress(base64.urlsafe_b64decode(word)))
    except zlib.error as error:
        raise ValueError(f"not a spec: {error}") from None
    if not isinstance(spec, dict):
        raise ValueError("not a spec: a JSON object is needed")
    return spec


def load(path: str) -> dict[str, Any]:
    """The spec from its file. OSError, ValueError if it cannot be read."""
    with open(path, "rb") as file:
        spec = json.loads(file.read())
    if not isinstance(spec, dict):
        raise ValueError(f"{path}: not a spec")
    return spec


def main(argv: list[str]) -> int:
    """The ``spec`` verb: ``spec FILE WORD`` writes the spec where a person can read it."""
    if len(argv) != 2:
        print("spec FILE WORD", file=sys.stderr)
        return 64
    write_json(argv[0], decode(argv[1]))
    return 0
