"""Services under sysvinit: the block in inittab, the keeper, what is read back; in a real shell."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import dvslook, sysvinit
from umlaan.plan.dvssides import digest
from umlaan.plan.templates import render

MINE = "id:2:initdefault:\nl2:2:wait:/etc/init.d/rc 2\nca:12345:ctrlaltdel:/sbin/shutdown -r now"
NAMES = ["dvs-proxy-node0", "dvs-proxy-node12", "dvs-join"]
WAIT_S = 60.0


def until(condition: Callable[[], Any]) -> Any:
    """What the condition says once it says anything."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Guest:
    """A folder in the place of a guest: its inittab, its services, its pids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inittab = folder / "inittab"
        self.inittab.write_text(MINE)
        (folder / "run").mkdir()
        self.side = {
            "folder": str(folder / "dvs"),
            "run": str(folder / "run"),
            "services": NAMES,
            "place": "guest",
        }
        (folder / "dvs").mkdir()
        self.keepers: list[subprocess.Popen[bytes]] = []

    def sh(self, *lines: str) -> str:
        text = "\n".join(lines).replace(sysvinit.BACKUP, str(self.folder / "backup/inittab"))
        text = text.replace(sysvinit.INITTAB, str(self.inittab)).replace("telinit q", "true")
        done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def follow(self, names: list[str] = NAMES) -> None:
        self.side["services"] = names
        Path(sysvinit.block_path(str(self.folder / "dvs"))).write_text(self.block())
        self.sh(*sysvinit.follow(self.side))

    def block(self) -> str:
        return sysvinit.block(str(self.folder / "dvs"), self.side["services"])  # type: ignore[arg-type]

    def service(self, name: str, script: str) -> subprocess.Popen[bytes]:
        """A service and its keeper, as init would start it."""
        run = self.folder / "dvs" / name / "run"
        run.parent.mkdir(exist_ok=True)
        run.write_text(f"#!/bin/sh\n{script}\n")
        run.chmod(0o755)
        text = render("dvs/keep.j2", side=self.side)
        keep = self.folder / "dvs/keep"
        keep.write_text(text.replace("/var/log/", f"{self.folder}/"))
        keep.chmod(0o755)
        self.keepers.append(subprocess.Popen([str(keep), name], start_new_session=True))
        return self.keepers[-1]

    def status(self) -> dict[str, dict[str, Any]]:
        return sysvinit.parse(self.sh(sysvinit.status(self.side)).splitlines())


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path)
    yield made
    for keeper in made.keepers:
        if keeper.poll() is None:
            keeper.terminate()
        keeper.wait(WAIT_S)
        # What a killed one had just forked is not ended with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
    for path in (tmp_path / "run").glob("*.pid"):
        os.killpg(int(path.read_text().split()[1]), signal.SIGKILL)


def test_every_service_has_an_id_of_its_own_that_sysvinit_takes() -> None:
    ids = [sysvinit.entry_id(f"dvs-proxy-node{n}") for n in range(32)]
    ids.append(sysvinit.entry_id("dvs-join"))
    assert len(set(ids)) == 33 and max(map(len, ids)) <= 4


def test_the_block_stands_behind_the_users_lines_and_once(guest: Guest) -> None:
    guest.follow()
    once = guest.inittab.read_text()
    assert once == f"{MINE}\n{guest.block()}"
    guest.follow()
    assert guest.inittab.read_text() == once
    assert (guest.folder / "backup/inittab").read_text() == MINE
    guest.sh(*sysvinit.away(guest.side))
    assert guest.inittab.read_text() == f"{MINE}\n"


def test_what_stands_in_inittab_is_compared_with_the_wanted_block(guest: Guest) -> None:
    folder = str(guest.folder / "dvs")
    assert guest.sh(sysvinit.hashes(folder)) == ""
    guest.follow()
    wanted = f"{digest(guest.block())}  {sysvinit.block_path(folder)}\n"
    assert guest.sh(sysvinit.hashes(folder)) == wanted
    guest.inittab.write_text(guest.inittab.read_text().replace("um0:2345", "um0:3"))
    assert guest.sh(sysvinit.hashes(folder)) not in ("", wanted)


def test_a_block_without_its_end_takes_nothing_of_the_users(guest: Guest) -> None:
    guest.inittab.write_text(f"{sysvinit.FIRST}\n{MINE}\n")
    guest.follow()
    assert guest.inittab.read_text() == f"{MINE}\n{guest.block()}"


def test_a_service_is_kept_running_and_its_log_written(guest: Guest) -> None:
    guest.service("dvs-join", "echo begun; exec sleep 1000")
    log = guest.folder / "dvs-join.log"
    first = until(lambda: guest.status().get("dvs-join"))
    until(lambda: log.exists() and "begun" in log.read_text())
    os.kill(first["pid"], signal.SIGKILL)
    again = until(lambda: (s := guest.status().get("dvs-join")) and s["pid"] != first["pid"] and s)
    assert again["up"]
    until(lambda: log.read_text().count("begun") == 2)
    assert "dvs-join ended with exit code 137" in log.read_text()


def test_ended_anew_with_all_that_it_started_even_if_stopped(guest: Guest) -> None:
    guest.service("dvs-join", "sleep 1000 & echo $! >$0.child; wait")
    first = until(lambda: guest.status().get("dvs-join"))
    child = guest.folder / "dvs/dvs-join/run.child"
    pid = int(until(lambda: child.exists() and child.read_text()))
    os.killpg(first["pid"], signal.SIGSTOP)
    until(lambda: guest.status()["dvs-join"]["state"] == "T")
    guest.sh(sysvinit.again(guest.side, "dvs-join"))
    until(lambda: not alive(pid))
    until(lambda: guest.status().get("dvs-join", {}).get("pid") not in (None, first["pid"]))


def alive(pid: int) -> bool:
    """Whether a process is more than a zombie that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_keeper_that_is_told_to_end_takes_its_service_along(guest: Guest) -> None:
    keeper = guest.service("dvs-join", "exec sleep 1000")
    pid = until(lambda: guest.status().get("dvs-join"))["pid"]
    keeper.terminate()
    assert keeper.wait(WAIT_S) == 0
    until(lambda: not alive(pid) and guest.status() == {})


def test_a_keeper_after_one_that_was_killed_ends_what_that_left(guest: Guest) -> None:
    first = guest.service("dvs-join", "exec sleep 1000")
    pid = until(lambda: guest.status().get("dvs-join"))["pid"]
    first.kill()
    first.wait()
    assert guest.status() == {} and alive(pid)
    guest.service("dvs-join", "exec sleep 1000")
    until(lambda: guest.status().get("dvs-join", {}).get("pid") not in (None, pid))
    until(lambda: not alive(pid))


def test_a_pid_of_another_boot_is_nobodys(guest: Guest) -> None:
    other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        pids = Path(sysvinit.pid_path(guest.side, "dvs-join"))
        pids.write_text(f"999999 {other.pid} another-boot\n")
        guest.service("dvs-join", "exec sleep 1000")
        until(lambda: guest.status().get("dvs-join", {}).get("pid") not in (None, other.pid))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_nothing_is_asked_or_ended_by_a_pid_of_another_boot(guest: Guest) -> None:
    others = [subprocess.Popen(["sleep", "1000"], start_new_session=True) for _ in range(2)]
    pids = Path(sysvinit.pid_path(guest.side, "dvs-join"))
    try:
        # Where /run is on the disk: after a boot these are the pids of somebody else's.
        pids.write_text(f"{others[0].pid} {others[1].pid} another-boot\n")
        assert guest.status() == {}
        guest.sh(*sysvinit.keepers_end(guest.side), sysvinit.again(guest.side, "dvs-join"))
        guest.follow(["dvs-proxy-node0"])
        assert [one.poll() for one in others] == [None, None]
        assert not pids.exists()
    finally:
        pids.unlink(missing_ok=True)
        for one in others:
            one.kill()
            one.wait()


def test_services_that_left_the_lab_are_ended(guest: Guest) -> None:
    guest.service("dvs-proxy-node12", "exec sleep 1000")
    pid = until(lambda: guest.status().get("dvs-proxy-node12"))["pid"]
    guest.follow(["dvs-proxy-node0", "dvs-join"])
    until(lambda: not alive(pid))
    assert not list((guest.folder / "run").glob("*.pid"))


def test_one_look_tells_kind_and_services() -> None:
    side = {"place": "guest", "services": ["dvs-join"], "dcs": [], "lab": "x", "name": "node1"}
    text = "==> @pids <==\n/proc/1\n==> @services <==\nkind sysvinit\nkeep dvs-join 300 301 S\n"
    view = dvslook.parse(side, text)
    assert view["kind"] == "sysvinit"
    assert view["services"] == {"dvs-join": {"up": True, "pid": 301, "state": "S"}}
