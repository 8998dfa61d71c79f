"""``node-stop JSON``: end one node's UML, cleanly if it can be.

The order: {name, dir, umid, root, deadline, forget, resume}. Ctrl-Alt-Del through mconsole first,
so that the guest's init powers off; then halt, SIGTERM, SIGKILL. It says which of them it took.
deadline: how long nothing may move on the way to its clean end.
forget: it stays down after a boot of the lab host; resume: the lab's unit starts it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from umlaan.agent import atboot, cgroup, mconsole, node, proc, reach, rootlock, sweep
from umlaan.agent.files import locked, read_json, write_json
from umlaan.agent.holder import LOG_MAX
from umlaan.agent.patience import Wait, of_processor
from umlaan.agent.start import BUSY
from umlaan.agent.wait import BUSY_PART, console_bytes

CLEAN_S = 45.0
ROUGH_S = 4.0
# A holder whose guest has ended has milliseconds of work left; a busy machine gives it no turn.
HOLDER_S = 15.0
# What a guest gets for an answer: of its clean end's time this part, which is more for a slow one.
ANSWER_S, ANSWER_PART = 3.0, 5
# A guest that pretends to be ending is ended after so many times the patience with it.
CAP = 3


class Stopping:
    """One UML on its way down."""

    def __init__(self, order: dict[str, Any], record: dict[str, Any]) -> None:
        self.order = order
        self.clean = float(order.get("deadline") or CLEAN_S)
        self.answer = max(ANSWER_S, self.clean / ANSWER_PART)
        self.pid = int(record["pid"])
        self.start = int(record["start"])
        self.argv = list(record["argv"])
        self.group = int(record.get("group") or 0)
        self.log = f"{order['dir']}/console.log"
        self.offset = os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def gone(self) -> bool:
        """True once the recorded process is no more."""
        return not proc.is_same(self.pid, self.start, self.argv)

    def wait(self, step: str, seconds: float) -> bool:
        """Wait for its end; False once nothing moves, or as soon as it boots again instead."""
        waiting = Wait(seconds, self.cap(seconds))
        while not self.gone():
            if not waiting.goes_on((console_bytes(self.order["dir"]), self.busy(seconds))):
                return False
            if step == "cad" and self.rebooted():
                print(f"{self.order['name']}: cad made it reboot instead of power off", flush=True)
                return False
            if waiting.due():
                print(f"{self.order['name']}: waiting for its end after {step}", flush=True)
            waiting.pause(most=0.1)
        return True

    def cap(self, seconds: float) -> float:
        """When it is ended whatever it does; as the machine goes down, it has no more than that."""
        return seconds if self.order.get("resume") else CAP * seconds

    def busy(self, seconds: float) -> int:
        """A measure of what it works on its way down."""
        return of_processor(self.pid, seconds * BUSY_PART)

    def rebooted(self) -> bool:
        """UML reboots within its process: a second kernel banner on the console tells."""
        try:
            with open(self.log, "rb") as file:
                file.seek(self.offset)
                return b"Linux version " in file.read(LOG_MAX)
        except OSError:
            return False

    def ask(self, command: str) -> bool:
        """Send one mconsole command; False if it is refused or nobody is there to take it."""
        try:
            accepted, _ = mconsole.ask(self.mconsole(), command, timeout=ANSWER_S)
        except mconsole.Late:
            # It answered a moment ago: a busy guest does it all the same.
            return True
        except mconsole.Silent:
            return False
        return accepted

    def mconsole(self) -> str:
        """UML's socket."""
        return f"{self.order['dir']}/uml/{self.order['umid']}/mconsole"

    def talks(self) -> bool:
        """True if the mconsole answers; a paused guest is resumed by the way."""
        waiting = Wait(self.answer, self.cap(self.answer), looks=1)
        while True:
            try:
                mconsole.ask(self.mconsole(), "go", timeout=self.answer)
            except mconsole.Late:
                # One that works is not hung: on a busy machine it had no turn yet.
                if not waiting.goes_on(self.busy(self.answer)):
                    return False
            except mconsole.Silent:
                return False
            else:
                return True

    def kill(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; SIGKILL to its group.

        A traced guest process whose UML dies first would run on as a process of the lab host's.
        """
        if not self.gone():
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL and os.getpgid(self.pid) in (self.pid, self.group):
                    os.killpg(os.getpgid(self.pid), number)
                os.kill(self.pid, number)
        return True


def stop(order: dict[str, Any]) -> str:
    """Stop it; the line for the user. Unkillable if something cannot be killed."""
    name = order["name"]
    row = node.state(order)
    if not row["running"]:
        swept = sweep.clear(order)
        cgroup.leave(order)
        reach.end_shared(order["dir"])
        return f"{name}: down already" + (f", {swept} leftover processes ended" if swept else "")
    begun = time.monotonic()
    one = Stopping(order, row["record"])
    tried = []
    # A paused guest goes on, so that it can end cleanly; a hung one does not answer at all.
    talks = one.talks()
    if not talks:
        print(f"{name}: its mconsole does not answer", flush=True)
    steps: list[tuple[str, Callable[[], bool], float]] = [
        ("cad", lambda: one.ask("cad"), one.clean),
        ("halt", lambda: one.ask("halt"), ROUGH_S),
        ("SIGTERM", lambda: one.kill(signal.SIGTERM), ROUGH_S),
        ("SIGKILL", lambda: one.kill(signal.SIGKILL), ROUGH_S),
    ]
    for step, act, wait in steps if talks else steps[2:]:
        tried.append(step)
        if act() and one.wait(step, wait):
            break
    _holder_writes_end(order, row["record"])
    sweep.clear(order)
    cgroup.leave(order)
    # The lock is free once the last process that inherited it is gone.
    os.close(rootlock.take(order["root"], f"stop of {name}", wait=5.0))
    reach.end_shared(order["dir"])
    how = tried[-1] if len(tried) == 1 else f"{tried[-1]} ({', '.join(tried[:-1])} did not do)"
    unclean = "" if tried == ["cad"] else "; its file system replays its journal at the next mount"
    said = f"stopped by {how} in {time.monotonic() - begun:.1f} s{unclean}"
    _log(one.log, said if talks else f"its mconsole did not answer; {said}")
    return f"{name}: {said}"


def _log(path: str, text: str) -> None:
    """Into the console's log: what a shutdown of the lab host did is read nowhere else."""
    with contextlib.suppress(OSError), open(path, "ab") as file:
        file.write(f"[umlaan: {time.strftime('%F %T')} {text}]\r\n".encode())
        file.flush()
        os.fsync(file.fileno())


def _holder_writes_end(order: dict[str, Any], record: dict[str, Any]) -> None:
    """Give the holder its moment to record the exit; without a holder, record it here."""
    keeper = record.get("holder") or {}
    waiting = Wait(HOLDER_S)
    path = node.record_path(order["dir"])
    while keeper.get("pid"):
        found = proc.process(keeper["pid"])
        if found is None or found.dead or found.start != keeper.get("start"):
            break
        if not waiting.goes_on(None):
            # It hangs, and would write over what is written here, should it ever go on.
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
            break
        waiting.pause(least=0.02)
    written = read_json(path)
    if not isinstance(written, dict) or not written.get("exit"):
        written = {**record, "exit": {"code": None, "at": time.time()}}
        with contextlib.suppress(OSError):
            # It is down all the same, though no room is left to note how.
            write_json(path, written)
    if order.get("resume"):
        with contextlib.suppress(OSError):
            write_json(path, {**written, "resume": True})


def main(argv: list[str]) -> int:
    """The ``node-stop`` verb."""
    order = json.loads(argv[0])
    name = order["name"]
    if not os.path.isdir(order["dir"]):
        print(f"{name}: down already")
        return 0
    try:
        with locked(f"{order['dir']}/launch.lock", f"stop of {name}", wait=60.0):
            if order.get("forget"):
                atboot.forget(order["dir"])
            print(stop(order), flush=True)
    except (rootlock.RootBusy, TimeoutError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return BUSY
    except (sweep.Unkillable, OSError) as error:
        print(f"{name}: not stopped: {error}", file=sys.stderr)
        return 1
    return 0
