"""What goes wrong, for its user: one message that says what to do next."""

from __future__ import annotations


class Fault(Exception):
    """Ends the command with this message and exit code; further lines stand indented below."""

    def __init__(self, message: str, *hints: str, code: int = 1) -> None:
        super().__init__("\n".join([message, *hints]))
        self.code = code
