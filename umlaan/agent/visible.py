r"""One printer for words that others chose: guests, their roots, consoles, programs, file names.

What a terminal would obey instead of showing (control characters, escapes, marks that turn the
direction of writing, bytes that are no UTF-8) is shown as ``\x1b`` and the like, in ASCII.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import Any

# C0 but newline and tab, DEL, C1; lone surrogates (bytes that were no UTF-8); marks of direction,
# separators of lines, invisible blanks and tags.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
# What a person can still take in of one word.
LONG = 300


def _shown(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:
        # As os.fsdecode leaves a byte that is no UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 1 << 16
        else (f"\\U{code:08x}")
    )


def visible(text: str | bytes) -> str:
    """The text with nothing in it that a terminal obeys; newlines and tabs stay."""
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    return _HIDDEN.sub(_shown, text.replace("\r\n", "\n"))


def word(text: object, most: int = LONG) -> str:
    """Somebody's word for a line of ours: no line of its own, and not endless."""
    shown = visible(str(text)[: most + 1]).replace("\n", "\\n").replace("\t", "\\t")
    return shown if len(shown) <= most else f"{shown[:most]}…"


class Stream:
    """Bytes that come in pieces, as they may be shown; what was cut in two waits for its rest."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def take(self, data: bytes, *, final: bool = False) -> str:
        """The next piece of text."""
        text = self._held + self._decoder.decode(data, final)
        # A carriage return counts with the newline behind it.
        self._held = "\r" if text.endswith("\r") and not final else ""
        return visible(text.removesuffix(self._held))


class Output(io.TextIOWrapper):
    """A standard stream that shows whatever is written to it."""

    def write(self, text: str, /) -> int:
        """Write it visibly."""
        super().write(visible(text))
        return len(text)


def shown(stream: Any) -> Any:
    """The stream, or an Output in its place; in a test it may be no stream of the system's."""
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, Output):
        return stream
    stream.flush()
    # As it was: standard error is never kept back.
    buffering, through = stream.line_buffering, stream.write_through
    return Output(
        stream.detach(),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=buffering,
        write_through=through,
    )
