"""What a guest says without end: each reader takes so much, for so long, and ends who says it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import bounded, dvslook, exchange, live, mconsole, node, quiesce, ready, verify
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import read_json
from umlaan.measure.sides import SideError, SshSide

# Seconds that a reader is given where nothing comes, and by when a slow machine must keep them.
DEADLINE, SURELY = 0.5, 60.0
# What a stand-in for ssh does in place of an answer.
FLOOD = "exec cat /dev/zero"
DRIP = "while :; do echo x; sleep 0.1; done"
SHUT = "exec >&- 2>&-; while :; do sleep 0.1; done"
SILENT = "while :; do sleep 0.1; done"
# Its children are not the one that was started.
FORKED = "cat /dev/zero & wait"
WAYS = {"flood": FLOOD, "drip": DRIP, "shut": SHUT, "silent": SILENT, "forked": FORKED}


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """The words of an ssh that does this; nothing of it may live when the test ends."""
    pids = tmp_path / "pids"
    pids.touch()

    def words(does: str) -> list[str]:
        path = tmp_path / "ssh"
        path.write_text(f"#!/bin/sh\necho $$ >>{pids}\n{does}\n")
        path.chmod(0o755)
        return [str(path)]

    yield words
    until = time.monotonic() + SURELY
    for pid in map(int, pids.read_text().split()):
        while _group_lives(pid):
            assert time.monotonic() < until, f"{pid} goes on"
            time.sleep(0.05)


def _group_lives(group: int) -> bool:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                return True
    return False


def _look(words: list[str], seconds: float) -> str:
    code, output, errors = dvslook.run_there({"name": "node1", "shell": words}, "x", None, seconds)
    assert (code, output) == (124, "")
    return errors


def _view(words: list[str], seconds: float) -> str:
    spec = {"ssh": words, "node0": {"address": "127.0.0.1"}, "dvs": None, "pairs": None}
    return str(verify.guest_view({**spec, "patience": seconds})["error"])


def _status(words: list[str], seconds: float) -> str:
    guest = {"ssh": words, "state": "/s", "tree": "/t"}
    one = live.Asked("node1", guest)
    try:
        view = live.listen([one], time.monotonic() + seconds)["node1"]
    finally:
        # A late one may go on for its spare time: that ends it here.
        one.program.kill()
    assert view["tables"] == {}
    return f"{view['heard']} {view['fault']}"


def _side(words: list[str], seconds: float) -> str:
    try:
        done = SshSide("node1", words).run("x", seconds)
    except SideError as fault:
        return str(fault)
    assert len(done.output) < 1000
    return "late" if done.timed_out else f"code {done.code}"


def _server(words: list[str], seconds: float) -> str:
    test = {"serve": "x", "ready": "true"}
    side = {"name": "node1", "shell": words, "patience": 20}
    with pytest.raises(exchange.Refused) as fault, exchange.Server(side, test, 1) as server:
        server.said(seconds)
    return str(fault.value)


READERS = {"look": _look, "verify": _view, "status": _status, "measure": _side, "test": _server}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reader", READERS)
def test_who_never_ends_is_ended(
    reader: str,
    way: str,
    stand_in: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("umlaan.measure.sides.SPARE_S", 0.5)
    monkeypatch.setattr("umlaan.measure.sides.MOST", 1 << 20)
    began = time.monotonic()
    floods = way in ("flood", "forked")
    said = READERS[reader](stand_in(WAYS[way]), SURELY if floods else DEADLINE)
    assert time.monotonic() - began < SURELY
    if floods:
        assert "said more than" in said
    elif reader == "status":
        assert said.strip() == "late"
    else:
        assert "no answer in" in said or "did not end" in said or said in ("late", "code 124")


def test_a_flood_is_never_held_in_memory() -> None:
    one = bounded.Program(["sh", "-c", FORKED], most=1 << 20)
    bounded.hear([one], time.monotonic() + SURELY)
    said = one.end(time.monotonic() + SURELY)
    assert (said.fault, said.code) == ("said more than 1 MB, which is not read", bounded.LATE)
    assert len(said.output) == 1 << 20


def test_a_kernel_that_floods_is_no_kernel(stand_in: Callable[[str], list[str]]) -> None:
    with pytest.raises(BuildError, match="said more than 8 MB"):
        ready._ask(stand_in(FLOOD))


def test_a_guest_that_freezes_says_one_word(stand_in: Callable[[str], list[str]]) -> None:
    order = {"dir": "/nowhere", "umid": "node1", "ssh": stand_in(FLOOD)}
    with pytest.raises(quiesce.Restless), quiesce.still(order):
        raise AssertionError("it is not still")


@pytest.mark.parametrize("most", [1, 10_000])
def test_an_mconsole_that_never_ends_its_answer(tmp_path: Path, most: int) -> None:
    """more: every packet says that another one follows, at once or dripping."""
    (tmp_path / "uml/node1").mkdir(parents=True)
    path = str(tmp_path / "uml/node1/mconsole")
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    door.bind(path)
    stop = threading.Event()

    def serve() -> None:
        _, sender = door.recvfrom(4096)
        while not stop.is_set():
            with contextlib.suppress(OSError):
                door.sendto(struct.pack("=III", 0, 1, 512) + b"x" * 512, sender)
            if most == 1:
                stop.wait(0.1)

    thread = threading.Thread(target=serve)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(mconsole.Silent, match="no answer|more than 1 MB"):
            mconsole.ask(path, "version", timeout=DEADLINE)
    finally:
        stop.set()
        thread.join()
        door.close()
    assert time.monotonic() - began < SURELY


@pytest.mark.parametrize("kind", ["fifo", "device", "large", "folder"])
def test_no_file_blocks_or_fills_its_reader(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "info"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"no regular file|larger than|Is a directory"):
        bounded.read(str(path))
    assert live.tables(str(tmp_path)) == {}
    assert read_json(str(path)) is None
    assert node.dc_state(str(path))["fault"]  # type: ignore[index]


def test_files_of_proc_have_no_size_and_are_read_whole() -> None:
    assert bounded.read("/proc/self/maps") and bounded.read("/proc/self/stat", 4096)


HOSTILE_TABLES = {
    "digits": f"{'9' * 5000} E 0 1 1 X node1\n 1 E 0 {'9' * 5000} 1 X node1\n",
    "other digits": "² E 0 ² ² X node1\n",
    "line": "1 " * 1_000_000,
    "rows": "".join(f"{n % 9999} E 0 1 1 X node{n}\n" for n in range(50_000)),
}


@pytest.mark.parametrize("what", HOSTILE_TABLES)
def test_tables_that_are_none_are_no_error_of_ours(what: str) -> None:
    from umlaan.agent import dvstables

    text = HOSTILE_TABLES[what]
    began = time.monotonic()
    for parse in (dvstables.nodes, dvstables.proxies, dvstables.procs, dvstables.info):
        assert len(parse(text)) <= 4096  # type: ignore[arg-type]
    assert time.monotonic() - began < SURELY


@pytest.mark.parametrize(
    "rows",
    [
        "==> @pids <==\n/proc/²\n",
        f"==> @pids <==\n/proc/{'9' * 5000}\n",
        "==> @dc 0 <==\npid 7\nState:\n",
        "==> @dc 0 <==\npid ²\n",
        "==> @services <==\nkind systemd\nId=umlaan-x-s.service\nMainPID=²\n",
        "==> @services <==\nkind sysvinit\nkeep s 1 ² S\n",
    ],
)
def test_a_look_that_makes_no_sense_is_a_side_that_does_not_answer(rows: str) -> None:
    """One guest's nonsense ended the look at all of them with a traceback."""
    dcs = [{"dcid": 0, "file": "/run/DC0.sh"}]
    side: dict[str, Any] = {"name": "node1", "place": "guest", "lab": "x", "dcs": dcs}
    view = dvslook.parse({**side, "services": ["s"], "run": "/r"}, rows)
    assert (view["answers"], view["files"]) == (False, {})
    assert "node1: what it says of its DVS makes no sense" in view["error"]


def test_figures_that_are_none_fail_their_test() -> None:
    test: dict[str, Any] = {"figure": r"Time = ([\d.]+)", "bytes": 0, "scale": 1.0, "unit": "ms"}
    with pytest.raises(exchange.Refused, match="no figure"):
        exchange.judge(test, "Time = 1.2.3.4", "")
    figure, told = exchange.judge(test, "Time = 2.5", f"checked_bytes = {'9' * 5000}")
    assert (figure, told) == ("2.5 ms", f"{'9' * 18} bytes right")


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("node1", "6.1.7"),
        ("my own name", "6.1.7"),
        ("\x1b]52;c;eA==\x07 [/x] #", "6.1.7"),
        ("a 1.2.3 #4 b", "6.1.7"),
        ("x", "6\x1b[31m"),
    ],
)
def test_a_hostname_is_not_taken_for_the_release(
    name: str, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mconsole's version says the guest's hostname before it, whatever stands in that."""
    answer = f"OK Linux {name} {release} #1 SMP Debian 6.1 (2026-01-01) x86_64"
    monkeypatch.setattr(live.mconsole, "ask", lambda *_, **__: (True, answer))
    found = live.release({"dir": "/x", "umid": "node1"})
    assert found == release.replace("\x1b", "\\x1b")
