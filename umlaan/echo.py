"""pyinfra's own lines: what they quote of a guest is shown, not obeyed; pyinfra's colours stay.

Floor: beside run.py. The connector of a node has it in force as soon as there is one.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from pyinfra import logger
from pyinfra.api import output

from umlaan.agent.visible import visible

# What click.style writes for bold and a colour: at worst a guest's words are coloured.
_STYLE = re.compile(r"(\x1b\[(?:0|1|3[0-7]|39|9[0-7])m)")
# Of one line that pyinfra prints: a guest's without an end took minutes to be made visible.
LONGEST = 100_000


def shown(text: str) -> str:
    """The text with nothing in it that a terminal obeys, but colours; its beginning, if endless."""
    if len(text) > LONGEST:
        more = len(text) - LONGEST
        text = f"{text[:LONGEST]}… and {more} more characters"
    return "".join(p if _STYLE.fullmatch(p) else visible(p) for p in _STYLE.split(text))


class Shown(logging.Filter):
    """Makes each record's words visible before they are formatted."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true: nothing is held back."""
        record.msg = _argument(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_argument, record.args))
        return True


def _argument(value: Any) -> Any:
    if isinstance(value, BaseException):
        value = str(value)
    return shown(value) if isinstance(value, str) else value


def make_visible() -> None:
    """Have all that pyinfra prints and logs from now on shown; once is enough."""
    now = output._echo
    if not hasattr(now, "umlaan_shown"):

        def echo(message: Any = None, **options: Any) -> None:
            now(_argument(message), **options)

        echo.umlaan_shown = True  # type: ignore[attr-defined]
        output.set_echo(echo)
    if not any(isinstance(each, Shown) for each in logger.filters):
        logger.addFilter(Shown())
