"""The small supervisor, on real processes: started, restarted, changed, taken over, ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import proc, supervise
from umlaan.agent import service as one_service


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "services").mkdir()
    (tmp_path / "run").mkdir()
    yield tmp_path
    supervise.stop(str(tmp_path / "run"))


def service(place: Path, name: str, script: str) -> None:
    folder = place / "services" / name
    folder.mkdir(exist_ok=True)
    beside = folder / "run.new"
    beside.write_text(f"#!/bin/sh\n{script}\n")
    beside.chmod(0o755)
    beside.rename(folder / "run")


def sync(place: Path) -> None:
    supervise.sync(str(place / "services"), str(place / "run"), str(place / "log"))


def row(place: Path, name: str) -> dict[str, Any]:
    found = supervise.status(str(place / "run"))
    assert found is not None
    return dict(found["services"].get(name, {"up": False, "pid": None}))


def until(what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def dead(pid: int) -> bool:
    found = proc.process(pid)
    return found is None or found.dead


def test_a_killed_service_is_started_again_and_its_log_says_so(place: Path) -> None:
    def begun() -> int:
        path = place / "log/one.log"
        return path.read_text().count("begun") if path.exists() else 0

    service(place, "one", "echo begun; exec sleep 1000")
    sync(place)
    # It runs before it has said so.
    until(lambda: row(place, "one")["up"] and begun() == 1)
    pid = row(place, "one")["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: row(place, "one")["up"] and row(place, "one")["pid"] != pid)
    assert row(place, "one")["restarts"] == 1
    until(lambda: begun() == 2)
    assert "killed by signal 9, again in 1 s" in (place / "log/one.log").read_text()


def test_what_a_service_forked_ends_with_it(place: Path) -> None:
    service(place, "one", "sleep 1000 & echo $! > " + str(place / "child") + "; exec sleep 1000")
    sync(place)
    until(lambda: (place / "child").exists() and (place / "child").read_text().strip())
    child = int((place / "child").read_text())
    until(lambda: row(place, "one")["up"])
    os.kill(row(place, "one")["pid"], signal.SIGKILL)
    until(lambda: dead(child))


def test_a_changed_service_starts_anew_and_one_that_left_ends(place: Path) -> None:
    service(place, "one", "exec sleep 1000")
    service(place, "two", "exec sleep 1000")
    sync(place)
    until(lambda: row(place, "one")["up"] and row(place, "two")["up"])
    first, second = row(place, "one")["pid"], row(place, "two")["pid"]
    service(place, "one", "exec sleep 2000")
    (place / "services/two/run").unlink()
    (place / "services/two").rmdir()
    sync(place)
    until(lambda: row(place, "one")["up"] and row(place, "one")["pid"] != first)
    until(lambda: dead(second))
    # Its shell becomes it a moment later.
    until(lambda: proc.cmdline(row(place, "one")["pid"]) == ["sleep", "2000"])
    until(lambda: "two" not in (supervise.status(str(place / "run")) or {})["services"])


def test_a_second_sync_leaves_what_runs_alone(place: Path) -> None:
    service(place, "one", "exec sleep 1000")
    sync(place)
    until(lambda: row(place, "one")["up"])
    pid, keeper = row(place, "one")["pid"], (supervise.status(str(place / "run")) or {})["pid"]
    sync(place)
    assert row(place, "one")["pid"] == pid
    assert (supervise.status(str(place / "run")) or {})["pid"] == keeper


def test_a_service_that_cannot_live_is_tried_less_and_less(place: Path) -> None:
    service(place, "one", "exit 3")
    sync(place)
    log = place / "log/one.log"
    until(lambda: "again in 2 s" in log.read_text())
    until(lambda: row(place, "one")["restarts"] >= 2)
    assert row(place, "one")["said"] == "exit code 3"
    assert [line.split(", ")[-1].rstrip("]") for line in log.read_text().splitlines()[:2]] == [
        "again in 1 s",
        "again in 2 s",
    ]


def test_a_killed_supervisor_is_replaced_and_nothing_runs_twice(place: Path) -> None:
    service(place, "one", "exec sleep 1000")
    sync(place)
    until(lambda: row(place, "one")["up"])
    pid = row(place, "one")["pid"]
    os.kill((supervise.status(str(place / "run")) or {})["pid"], signal.SIGKILL)
    until(lambda: not (supervise.status(str(place / "run")) or {})["alive"])
    assert not dead(pid)
    sync(place)
    until(lambda: row(place, "one")["up"] and row(place, "one")["pid"] != pid)
    assert dead(pid)


def test_stop_ends_all_of_it_a_stopped_service_too(place: Path) -> None:
    service(place, "one", "exec sleep 1000")
    service(place, "two", "trap '' TERM; while :; do sleep 1; done")
    sync(place)
    until(lambda: row(place, "one")["up"] and row(place, "two")["up"])
    pids = [row(place, name)["pid"] for name in ("one", "two")]
    os.kill(pids[0], signal.SIGSTOP)
    until(lambda: row(place, "one")["state"] == "T")
    assert supervise.stop(str(place / "run"))
    assert all(dead(pid) for pid in pids)
    assert not supervise.stop(str(place / "run"))


def test_a_log_is_turned_at_its_size(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_service, "LOG_MAX", 1000)
    log = one_service.Log(str(place / "log/x.log"))
    for number in range(60):
        os.write(log.writer, f"line {number:04d} {'x' * 40}\n".encode())
        log.take()
    log.close()
    names = sorted(p.name for p in (place / "log").iterdir())
    assert names == ["x.log", "x.log.1", "x.log.2"]
    assert "line 0059" in (place / "log/x.log").read_text() + (place / "log/x.log.1").read_text()
