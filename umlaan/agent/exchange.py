"""One short test of the procedure between two sides: its server on one, its client on the other.

A test is {"what", "server", "client" (side names), "serve", "ask", "ready" (scripts), "endpoints",
"unbind" ({side: {endpoint: script}}), "figure" (a pattern), "unit", "count"}. Upstream's programs
are void main: their exit codes say nothing, so that what they print decides.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from typing import Any

from umlaan.agent import bounded, dvslook, dvstables
from umlaan.agent.dvslook import Side, View
from umlaan.agent.visible import word

READY_S = 10.0
CLIENT_S = 30.0
# A program under debug prints much; its figures are a few lines.
MOST = 1 << 20
_WRONG = re.compile(r"wrong_bytes = ([0-9]{1,18})")
_CHECKED = re.compile(r"checked_bytes = ([0-9]{1,18})")

Test = dict[str, Any]


class Refused(Exception):
    """Why a test cannot be made, or how it failed; one line for its user."""


def clear(side: Side, view: View, test: Test) -> list[str]:
    """Free what an aborted test left on this test's endpoints; what was freed, in words.

    Refused if a program that still lives holds one: unbinding under it panics a real DVS's guest.
    """
    freed = []
    alive = set(view["pids"])
    for row in dvstables.procs(view["files"].get(f"DC{test['dcid']}/procs", "")):
        if row["endpoint"] not in test["endpoints"]:
            continue
        local = row["node"] == side["number"]
        if local and row["pid"] in alive:
            raise Refused(
                f"{side['name']}: endpoint {row['endpoint']} is bound by {row['name']}, "
                f"pid {row['pid']}, which still runs; end it first"
            )
        command = test["unbind"][side["name"]][str(row["endpoint"])]
        dvslook.run_there(side, command, None, 30 * dvslook.slow(side))
        freed.append(f"{side['name']}: endpoint {row['endpoint']} of an aborted test unbound")
    return freed


def _bounded(script: str, seconds: float) -> str:
    return f"timeout -k 2 {seconds:.0f} sh -c {shlex.quote(script)}"


class Server:
    """The server of one test, started on its side; it ends with the block at the latest."""

    def __init__(self, side: Side, test: Test, seconds: float) -> None:
        self.ready_s = READY_S * dvslook.slow(side)
        script = _bounded(test["serve"], self.ready_s + seconds)
        words = [*side["shell"], f"exec {script}"] if side["shell"] else ["sh", "-c", script]
        self.side, self.test = side, test
        self.program = bounded.Program(words, most=MOST, errors=subprocess.STDOUT)
        self.process = self.program.process

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
        self.program.kill()
        self.program.close()

    def await_ready(self) -> None:
        """Until its endpoint is bound. Refused if it ends before, or at the deadline."""
        poll = (
            f"n=0; until ( {self.test['ready']} ) >/dev/null 2>&1; do n=$((n + 1)); "
            f"[ $n -gt {self.ready_s * 20:.0f} ] && exit 4; sleep 0.05; done"
        )
        deadline = time.monotonic() + self.ready_s
        while True:
            # On this machine a look costs little: then an end of the server is seen at once.
            script = poll if self.side["shell"] else self.test["ready"]
            code, _, _ = dvslook.run_there(self.side, script, None, self.ready_s + 5)
            if code == 0:
                return
            if self.process.poll() is not None:
                raise Refused(f"the server ended at once: {last_line(self.said(1))}")
            if time.monotonic() > deadline:
                raise Refused(f"the server did not bind its endpoint in {self.ready_s:.0f} s")
            time.sleep(0.02)

    def said(self, seconds: float) -> str:
        """What it printed, once it has ended; Refused if it does not."""
        deadline = time.monotonic() + seconds
        late = bounded.hear([self.program], deadline)
        if self.program.fault:
            raise Refused(f"the server {self.program.fault}")
        try:
            # It may have closed its output and live on.
            self.process.wait(0 if late else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Refused(f"the server did not end in {seconds:.0f} s after its client") from None
        return self.program.text()


def exchange(sides: dict[str, Side], test: Test) -> tuple[str, str]:
    """(server's words, client's words) for the table. Refused if it failed."""
    server, client = sides[test["server"]], sides[test["client"]]
    seconds = CLIENT_S * dvslook.slow(server, client)
    with Server(server, test, seconds) as serving:
        serving.await_ready()
        code, output, errors = dvslook.run_there(
            client, _bounded(test["ask"], seconds), None, seconds + 10
        )
        if code in (124, 137):
            raise Refused(f"client on {client['name']}: no end in {seconds:.0f} s")
        asked = output + errors
        try:
            said = serving.said(10 * dvslook.slow(server))
        except Refused as fault:
            raise Refused(f"{fault}; client: {last_line(asked)}") from None
    return judge(test, said, asked)


def judge(test: Test, said: str, asked: str) -> tuple[str, str]:
    """The figure of the server, and what the client checked. Refused where either is not whole."""
    found = re.search(test["figure"], said)
    if found is None:
        raise Refused(f"no figure; client: {last_line(asked)}; server: {last_line(said)}")
    wrong = [int(n) for text in (said, asked) for n in _WRONG.findall(text)]
    checked = [int(n) for text in (said, asked) for n in _CHECKED.findall(text)]
    if any(wrong):
        raise Refused(f"{sum(wrong)} wrong bytes arrived")
    if checked and max(checked) < test["bytes"]:
        raise Refused(f"only {max(checked)} of {test['bytes']} bytes arrived")
    told = f"{max(checked)} bytes right" if checked else "done"
    try:
        figure = float(found.group(1)[:40])
    except ValueError:
        raise Refused(f"no figure: {word(found.group(0))}") from None
    return f"{figure * test['scale']:.3g} {test['unit']}", told


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return word(lines[-1], 160) if lines else "(said nothing)"
