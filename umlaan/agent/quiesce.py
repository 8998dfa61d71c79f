"""Hold a running guest still for a moment, so that its root can be copied as one consistent state.

First choice: the guest freezes its root (fsfreeze: nothing unwritten, the journal empty) over one
ssh that is told to thaw, and thaws by itself if that ends. Where a guest cannot, its UML is paused
by the management console after a sync; the journal then does the rest on the copy.
"""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from umlaan.agent import mconsole

# The shell reads one line or the end of its input, whichever comes: it always thaws.
_FREEZE = """\
sync
if fsfreeze -f / 2>/dev/null; then
    echo frozen
    read -r _
    fsfreeze -u /
    echo thawed
else
    echo no
fi
"""
FREEZE_S = 20.0
THAW_S = 5.0
WORD = 64


class Restless(Exception):
    """The guest can neither freeze nor be paused; the message says what was tried."""


def _word(process: subprocess.Popen[bytes], seconds: float) -> str:
    """The next line of the guest's shell; empty at its end or after the time."""
    assert process.stdout is not None
    text = b""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        # One of three short words; what is longer is none.
        while not text.endswith(b"\n") and len(text) < WORD:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return ""
            byte = process.stdout.read(1)
            if not byte:
                return ""
            text += byte
    return text.decode(errors="replace").strip()


@contextlib.contextmanager
def still(order: dict[str, Any]) -> Iterator[str]:
    """Hold the guest still while the body runs; how: frozen or paused. Restless if it cannot be."""
    socket = f"{order['dir']}/uml/{order['umid']}/mconsole"
    with subprocess.Popen(
        [*order["ssh"], _FREEZE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as guest:
        assert guest.stdin is not None
        if _word(guest, FREEZE_S) == "frozen":
            try:
                yield "frozen"
            finally:
                with contextlib.suppress(OSError):
                    guest.stdin.write(b"\n")
                    guest.stdin.close()
                if _word(guest, THAW_S) != "thawed":
                    _thaw(socket)
                _end(guest)
            return
        # It may be frozen all the same and only its answer late: it thaws at the end of its input.
        _end(guest)
    yield from _paused(socket)


def _end(guest: subprocess.Popen[bytes]) -> None:
    if guest.stdin is not None:
        with contextlib.suppress(OSError):
            guest.stdin.close()
    try:
        guest.wait(2)
    except subprocess.TimeoutExpired:
        guest.kill()


def _thaw(socket: str) -> None:
    # SysRq j thaws every frozen file system from inside the kernel.
    with contextlib.suppress(mconsole.Silent):
        mconsole.ask(socket, "sysrq j")


def _paused(socket: str) -> Iterator[str]:
    try:
        stopped, said = mconsole.ask(socket, "stop")
    except mconsole.Silent as error:
        raise Restless(
            f"ssh does not freeze it and its console does not pause it: {error}"
        ) from None
    # One that its user has paused stays so.
    if not stopped and "lready" not in said:
        raise Restless(f"its console does not pause it: {said.strip()}")
    try:
        yield "paused"
    finally:
        if stopped:
            with contextlib.suppress(mconsole.Silent):
                mconsole.ask(socket, "go")
