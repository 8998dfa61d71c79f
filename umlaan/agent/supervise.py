"""A small supervisor for lab hosts without systemd: keeps a folder's services running.

``supervise sync|stop|status FOLDER RUN LOG``. FOLDER/NAME/run is a service; RUN holds the status
and the lock; LOG/NAME.log is what a service prints, turned at 1 MB, three files kept. It runs in a
session of its own; a service that ends is started again after a second, later after up to 30.
A service whose run file changed is started anew, one whose folder went is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

from umlaan.agent import proc
from umlaan.agent.files import locked, make_folder, read_json, write_json
from umlaan.agent.index import hash_file
from umlaan.agent.patience import Wait, of_processor
from umlaan.agent.service import Log, Row, Service

BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
LIVED_S = 10.0
PATIENCE_S = 5.0


def wanted(folder: str) -> dict[str, str]:
    """{name: hash of its run file} of the services in a folder."""
    out = {}
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            with contextlib.suppress(OSError):
                out[name] = hash_file(f"{folder}/{name}/run")
    return out


def status_path(run: str) -> str:
    """Where the supervisor writes what it knows."""
    return f"{run}/supervise.json"


def alive(row: Row | None) -> bool:
    """True if a recorded process (pid, start) still is that process."""
    if not row or not row.get("pid"):
        return False
    found = proc.process(row["pid"])
    return found is not None and not found.dead and found.start == row["start"]


def status(run: str) -> Row | None:
    """{supervisor, services: {name: {pid, start, restarts, said, hash, state}}}; None without one.

    Each service's "up" says whether its process is there, "state" is the kernel's letter for it.
    """
    found = read_json(status_path(run))
    if not isinstance(found, dict) or found.get("boot_id") != proc.boot_id():
        return None
    found["alive"] = alive(found)
    for row in found["services"].values():
        row["up"] = alive(row)
        one = proc.process(row["pid"]) if row["up"] else None
        row["state"] = one.state if one else None
        row["seconds"] = round(proc.age(row["start"]), 1) if row["up"] else 0.0
    return found


class Supervisor:
    """The loop: start what is due, take what is said, notice what ended, follow the folder."""

    def __init__(self, folder: str, run: str, log: str) -> None:
        self.folder, self.run, self.log = folder, run, log
        self.services: dict[str, Service] = {}
        self.generation = 0
        self.asked = self.ending = False
        self.selector = selectors.DefaultSelector()
        self.wakeup, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self.wakeup, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(wake)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, self._signal)
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def _signal(self, number: int, _frame: object) -> None:
        self.asked |= number == signal.SIGHUP
        self.ending |= number == signal.SIGTERM

    def follow(self) -> None:
        """Take the folder for what is wanted."""
        found = {} if self.ending else wanted(self.folder)
        for name, digest in found.items():
            known = self.services.get(name)
            if known is None:
                one = self.services[name] = Service(name, digest, log=Log(f"{self.log}/{name}.log"))
                self.selector.register(one.log.reader, selectors.EVENT_READ, one)
            elif known.hash != digest or known.going:
                known.hash, known.going, known.failures = digest, False, 0
                self._term(known)
                known.due = 0.0
        for name in set(self.services) - set(found):
            self.services[name].going = True
            self._term(self.services[name])
        self.generation += 1

    def _term(self, one: Service) -> None:
        if one.process is not None and one.deadline is None:
            one.end(signal.SIGTERM)
            # A stopped process takes the signal once it goes on.
            one.end(signal.SIGCONT)
            one.deadline = time.monotonic() + PATIENCE_S

    def step(self) -> None:
        """One turn: reap, start, and drop what went."""
        now = time.monotonic()
        changed = False
        for one in list(self.services.values()):
            if one.process is not None and one.process.poll() is not None:
                self._ended(one, now)
                changed = True
            if one.process is not None and one.deadline is not None and now >= one.deadline:
                one.end(signal.SIGKILL)
            if one.process is None and one.going:
                self.selector.unregister(one.log.reader)
                one.log.take()
                one.log.close()
                del self.services[one.name]
                changed = True
            elif one.process is None and now >= one.due:
                self._start(one, now)
                changed = True
        if self.asked:
            self.asked = False
            self.follow()
            changed = True
        if changed:
            self.write()

    def _start(self, one: Service, now: float) -> None:
        try:
            one.process = subprocess.Popen(
                [f"{self.folder}/{one.name}/run"],
                stdin=subprocess.DEVNULL,
                stdout=one.log.writer,
                stderr=one.log.writer,
                cwd="/",
                start_new_session=True,
                restore_signals=True,
            )
        except OSError as error:
            one.failures += 1
            one.said = str(error)
            one.due = now + BACKOFF_S[min(one.failures, len(BACKOFF_S)) - 1]
            return
        found = proc.process(one.process.pid)
        one.start = found.start if found else 0
        one.began, one.deadline = now, None

    def _ended(self, one: Service, now: float) -> None:
        assert one.process is not None
        # What it forked must not go on beside the next one.
        one.end(signal.SIGKILL)
        code = one.process.returncode
        one.said = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        one.process, one.deadline = None, None
        one.failures = 0 if now - one.began >= LIVED_S else one.failures + 1
        one.due = now + BACKOFF_S[min(max(one.failures, 1), len(BACKOFF_S)) - 1]
        one.restarts += 1
        again = "" if one.going else f", again in {one.due - now:.0f} s"
        one.log.say(f"{one.name}: {one.said}{again}")

    def write(self) -> None:
        """Say what is."""
        own = proc.process(os.getpid())
        services = {name: one.row() for name, one in self.services.items()}
        value = {"pid": os.getpid(), "start": own.start if own else 0, "services": services}
        with contextlib.suppress(OSError):
            write_json(
                status_path(self.run),
                {**value, "boot_id": proc.boot_id(), "generation": self.generation},
            )

    def loop(self) -> None:
        """Until SIGTERM, and then until every service has ended."""
        self.follow()
        self.write()
        while True:
            self.step()
            if self.ending:
                self.follow()
                if not self.services:
                    break
            now = time.monotonic()
            # One that goes and has ended already is dropped in the next turn, which is now.
            times = [0.0 if s.going else s.due for s in self.services.values() if not s.process]
            times += [s.deadline for s in self.services.values() if s.deadline is not None]
            left = max(0.0, min([*times, now + 60.0]) - now)
            for key, _ in self.selector.select(max(left, 0.01)):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wakeup, 512)
                else:
                    key.data.log.take()
        self.write()


def end_strays(run: str) -> None:
    """End services whose supervisor was killed: nobody restarts or reads them any more."""
    found = read_json(status_path(run))
    if not isinstance(found, dict) or found.get("boot_id") != proc.boot_id():
        return
    for row in found["services"].values():
        if alive(row):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(row["pid"], signal.SIGKILL)


def _daemon(folder: str, run: str, log: str) -> None:
    """Never returns: the supervisor in a session of its own."""
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.chdir("/")
    code = 1
    try:
        with locked(f"{run}/supervise.lock", "supervisor"):
            end_strays(run)
            Supervisor(folder, run, log).loop()
        code = 0
    finally:
        os._exit(code)


def sync(folder: str, run: str, log: str, wait: float = 15.0) -> None:
    """Have the supervisor run and follow the folder as it is now. TimeoutError if it does not."""
    make_folder(run, 0o700)
    found = status(run)
    before = found["generation"] if found and found["alive"] else 0
    if found and found["alive"]:
        os.kill(found["pid"], signal.SIGHUP)
    elif os.fork() == 0:
        _daemon(folder, run, log)
    _await(lambda row: bool(row and row["alive"] and row["generation"] > before), run, wait)


def _await(condition: Any, run: str, wait: float) -> None:
    waiting = Wait(wait)
    while not condition(row := status(run)):
        # It works through its services one after the other.
        moves = row and (row["pid"], row["generation"], of_processor(row["pid"], wait / 30))
        states = row and tuple((name, one["up"]) for name, one in row["services"].items())
        if not waiting.goes_on((moves, states)):
            raise TimeoutError(f"supervisor: {waiting.vain()}, see {status_path(run)}")
        waiting.pause(least=0.02)


def stop(run: str, wait: float = 15.0) -> bool:
    """End the supervisor with its services; False where there was none."""
    found = status(run)
    if found is None or not found["alive"]:
        end_strays(run)
        return False
    os.kill(found["pid"], signal.SIGTERM)
    _await(lambda row: not (row and row["alive"]), run, wait)
    return True


def main(argv: list[str]) -> int:
    """The ``supervise`` verb."""
    verb, folder, run, log = argv
    try:
        if verb == "sync":
            sync(folder, run, log)
        elif verb == "stop":
            stop(run)
    except (OSError, TimeoutError) as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return 1
    print(json.dumps(status(run)))
    return 0
