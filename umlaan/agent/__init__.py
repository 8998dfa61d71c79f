"""Programs that run on the lab host itself: standard library only, ``python3 -m umlaan.agent``.

A fact or an operation calls them by name; they print JSON or progress lines. On a lab host over
ssh they arrive as one zip file, so nothing here may import what Debian's python3 does not bring.
"""

from __future__ import annotations

import sys


def itself(*words: str) -> list[str]:
    """The command line of this agent once more, as safe from the current folder's files as now."""
    safe = ["-P"] if getattr(sys.flags, "safe_path", False) else []
    return [sys.executable, *safe, "-S", "-m", "umlaan.agent", *words]
