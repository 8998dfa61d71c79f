"""Marked blocks in files of the user's: put, replace and take out, the rest byte for byte as is."""

from __future__ import annotations


def lines_of(mark: str) -> tuple[str, str]:
    """The first and last line of a block."""
    return f"# {mark} begin", f"# {mark} end"


def without(text: str, mark: str) -> str:
    """The text without its block; as it is where there is none.

    Of a block that lost its end only the first line goes: what follows may be the user's.
    """
    first, last = lines_of(mark)
    lines = text.splitlines(keepends=True)
    bare = [line.rstrip("\r\n") for line in lines]
    out: list[str] = []
    at = 0
    while at < len(lines):
        if bare[at] != first:
            out.append(lines[at])
        elif last in bare[at:]:
            at = bare.index(last, at)
        at += 1
    return "".join(out)


def with_block(text: str, mark: str, body: list[str], *, on_top: bool = False) -> str:
    """The text with its block, where it stands now or else at the end (or on top)."""
    first, last = lines_of(mark)
    block = "".join(f"{line}\n" for line in (first, *body, last))
    rest = without(text, mark)
    if on_top:
        return block + rest
    lines = text.splitlines(keepends=True)
    at = next((n for n, line in enumerate(lines) if line.rstrip("\r\n") == first), None)
    if at is None:
        glue = "" if not rest or rest.endswith("\n") else "\n"
        return rest + glue + block
    before = "".join(lines[:at])
    return before + block + rest[len(before) :]
