"""The agent's node verbs on a stand-in for UML: start, state, console, stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.uml import REPOSITORY, agent, state_of, typed_last, until
from umlaan.agent import dcfile, node, proc, rootlock, start, stop, tap
from umlaan.agent.wait import ended

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="locks roots under /run")


def test_never_launched(order: dict[str, Any]) -> None:
    row = state_of(order)
    assert (row["running"], row["record"], row["root_user"]) == (False, None, None)


def test_start_returns_at_once_and_the_node_is_known(order: dict[str, Any]) -> None:
    done = agent("node-start", order)
    assert done.returncode == 0, done.stderr
    row = state_of(order)
    assert row["running"]
    assert row["holder"]
    assert done.stdout == f"node9: started, pid {row['pid']}\n"
    assert row["record"]["argv"] == order["argv"]
    assert row["record"]["kernel_sha256"] == "a" * 64
    assert row["memory"] > 0
    assert 0 <= row["uptime"] < 60


def test_a_second_start_is_refused(order: dict[str, Any]) -> None:
    agent("node-start", order)
    done = agent("node-start", order)
    assert done.returncode == start.BUSY
    assert "it is up already" in done.stderr


def test_starts_at_once_start_one(order: dict[str, Any]) -> None:
    word = json.dumps(order)
    command = [sys.executable, "-S", "-m", "umlaan.agent", "node-start", word]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    several = [subprocess.Popen(command, env=environment, stderr=-3, stdout=-3) for _ in range(4)]
    assert sorted(one.wait(30) for one in several) == [0, 75, 75, 75]
    leaders = [m for m in node.members(order) if m.pid == m.group]
    assert len(leaders) == 1


def test_the_guest_holds_the_root_s_lock(order: dict[str, Any]) -> None:
    agent("node-start", order)
    until(lambda: "fake" in Path(order["dir"], "console.log").read_text())
    record = node.read_record(order["dir"])
    assert record is not None
    os.kill(record["holder"]["pid"], signal.SIGKILL)
    until(lambda: not state_of(order)["holder"])
    row = state_of(order)
    assert row["running"], "a guest outlives its holder"
    assert "node9" in (rootlock.holder(order["root"]) or "")
    done = agent("root-run", "--root", order["root"], "--dir", order["dir"], "--", "true")
    assert done.returncode == 199
    assert "its node is up" in done.stderr


def test_people_attach_and_detach(order: dict[str, Any]) -> None:
    agent("node-start", order)
    log = Path(order["dir"], "console.log")
    until(lambda: b"Linux version fake" in log.read_bytes())
    subprocess.run(
        [sys.executable, "-S", "-m", "umlaan.agent", "console", order["dir"]],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        input=b"hello\n\x1d",
        timeout=30,
        check=True,
    )
    until(lambda: b"said hello" in log.read_bytes())
    assert state_of(order)["running"]


def test_a_holder_that_hangs_cannot_write_over_the_end(
    order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["sleep", "1000"]) as holder:
        found = proc.process(holder.pid)
        assert found is not None
        record = {"holder": {"pid": holder.pid, "start": found.start}}
        monkeypatch.setattr(stop, "HOLDER_S", 0.1)
        stop._holder_writes_end({**order, "resume": True}, record)
        assert holder.wait(60) == -signal.SIGKILL
    written = json.loads(Path(node.record_path(order["dir"])).read_text())
    assert written["resume"] is True and written["exit"]["code"] is None


def test_the_end_is_recorded(order: dict[str, Any]) -> None:
    agent("node-start", order)
    assert "the guest has ended" in typed_last(order, "exit 7")
    until(lambda: (node.read_record(order["dir"]) or {}).get("exit"))
    row = state_of(order)
    assert not row["running"]
    assert row["record"]["exit"]["code"] == 7
    assert "exit code 7" in Path(order["dir"], "console.log").read_text()
    assert agent("console", order["dir"]).returncode == 69


def test_a_panic_is_told_by_who_waits(order: dict[str, Any]) -> None:
    agent("node-start", order)
    typed_last(order, "panic")
    until(lambda: not state_of(order)["running"])
    done = agent("node-wait", order)
    assert done.returncode == 1
    assert "the guest's kernel panicked (abort)" in done.stderr
    assert "console.log; its last lines:" in done.stderr


def test_who_waits_has_a_deadline(order: dict[str, Any]) -> None:
    agent("node-start", order)
    done = agent("node-wait", {**order, "address": "127.9.9.9"})
    assert done.returncode == 1
    assert "is up but ssh on 127.9.9.9 does not answer" in done.stderr


def test_a_uml_that_ends_at_once_is_no_start(order: dict[str, Any]) -> None:
    done = agent("node-start", {**order, "argv": [*order["argv"], "quits"]})
    log = Path(order["dir"], "console.log")
    until(lambda: "Kernel panic - not syncing: no root" in log.read_text())
    # It may just have been seen alive: then who waits tells.
    told = done if done.returncode else agent("node-wait", order)
    assert told.returncode == 1
    assert "exit code 3" in told.stderr


def test_stop_says_what_it_took(order: dict[str, Any]) -> None:
    agent("node-start", order)
    done = agent("node-stop", order)
    assert done.returncode == 0, done.stderr
    assert "its mconsole does not answer" in done.stdout
    assert "stopped by SIGTERM" in done.stdout
    log = Path(order["dir"], "console.log").read_text()
    assert "its mconsole did not answer; stopped by SIGTERM" in log
    assert not state_of(order)["running"]
    again = agent("node-stop", order)
    assert (again.returncode, again.stdout) == (0, "node9: down already\n")


def test_stop_kills_what_does_not_listen(order: dict[str, Any]) -> None:
    agent("node-start", {**order, "argv": [*order["argv"], "deaf"]})
    until(lambda: "fake" in Path(order["dir"], "console.log").read_text())
    done = agent("node-stop", order)
    assert "stopped by SIGKILL (SIGTERM did not do)" in done.stdout
    assert state_of(order)["record"]["exit"]["code"] == -9


def test_stop_waits_for_a_guest_that_is_slow_to_answer(order: dict[str, Any]) -> None:
    agent("node-start", {**order, "argv": [*order["argv"], "slow=4"]})
    until(lambda: os.path.exists(f"{order['dir']}/uml/node9/mconsole"))
    done = agent("node-stop", {**order, "deadline": 60})
    assert "node9: stopped by cad in" in done.stdout, done.stdout
    assert state_of(order)["record"]["exit"]["code"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"argv": ["/nowhere/linux"]}, "kernel /nowhere/linux is not there"),
        ({"root": "/nowhere/root"}, "root /nowhere/root is not there"),
        ({"namespace": "umlaan-none"}, "network namespace umlaan-none is not there"),
        ({"tmpdir": "/nowhere"}, "it holds the guest's memory"),
        ({"argv": [sys.executable, "eth0=tuntap,NOTAP,fe:fd:0:0:0:1"]}, "tap NOTAP is not there"),
        ({"mem": 1 << 60}, "it would die of SIGBUS"),
        ({"dc_file": "/nowhere/DC0.sh"}, "no DC to start in: /nowhere/DC0.sh: missing"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_runs(
    order: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    done = agent("node-start", {**order, **changed})
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert node.members(order) == []


def test_a_noexec_tmpdir_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs("/dev/shm")
    noexec = os.statvfs_result((*real[:8], real.f_flag | os.ST_NOEXEC, real.f_namemax))
    monkeypatch.setattr(start.os, "statvfs", lambda _: noexec)
    with pytest.raises(start.CannotStart, match="mount -o remount,exec /dev/shm"):
        start.check_tmpdir("/dev/shm", 0)


@pytest.mark.parametrize(
    ("text", "pid"),
    [("DC0=123\n", 123), ("#!/bin/sh\nexport DC3='77'\n", 77), ("DC=9", 9), ("nothing\n", None)],
)
def test_a_dc_file_is_read(text: str, pid: int | None) -> None:
    assert dcfile.parse(text) == pid


def test_a_dc_must_be_an_init(tmp_path: Path) -> None:
    path = tmp_path / "DC0.sh"
    path.write_text(f"DC0={os.getpid()}\n")
    found = node.dc_state(str(path))
    assert found is not None
    assert "is not the init of a PID namespace" in found["fault"]


def test_a_root_mounted_elsewhere_is_in_use(order: dict[str, Any]) -> None:
    subprocess.run(["truncate", "-s", "4M", order["root"]], check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", order["root"]], check=True)
    script = f"mount -o loop {order['root']} /mnt && echo mounted && read line"
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n"
        done = agent("node-start", order)
        assert done.returncode == start.BUSY
        assert "is in use by loop device" in done.stderr
    finally:
        holder.communicate()
    rootlock.wait_free(order["root"], 5)


def test_a_command_in_the_root_of_a_stopped_node(order: dict[str, Any], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("bin", "lib", "lib64", "dev", "proc", "run", "etc"):
        (tree / name).mkdir(parents=True)
    subprocess.run(
        f"cp -L /bin/sh {tree}/bin/; cp -L $(ldd /bin/sh | grep -o '/[^ ]*') "
        f"{tree}/lib/; cp -L {tree}/lib/* {tree}/lib64/",
        shell=True,
        check=True,
    )
    subprocess.run(["truncate", "-s", "32M", order["root"]], check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, order["root"]], check=True)
    words = ["root-run", "--root", order["root"], "--dir", order["dir"]]
    done = agent(
        *words, "--", "sh", "-c", "echo $$ >/etc/mark; read x; echo $x; exit 3", text="hi\n"
    )
    assert (done.returncode, done.stdout) == (3, "hi\n"), done.stderr
    done = agent(
        *words, "--read-only", "--", "sh", "-c", "read x </etc/mark; echo $x; echo >/etc/no"
    )
    assert done.stdout.strip().isdigit()
    assert done.returncode != 0
    assert rootlock.used_by(order["root"]) is None
    assert "/run/umlaan/root" not in Path("/proc/mounts").read_text()


def test_the_taps_of_a_command_line() -> None:
    words = ["linux", "eth0=tuntap,HTAP,fe:fd:c0:a8:01:65", "vec1:transport=tap,ifname=T2,gro=1"]
    assert tap.taps_of([*words, "ubda=/eth0=tuntap,x"]) == ["HTAP", "T2"]


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (None, "nobody saw it end"),
        ({"code": -9}, "killed by signal 9"),
        ({"code": 134}, "panicked"),
        ({"code": 2}, "exit code 2"),
    ],
)
def test_ends_in_words(end: Any, text: str) -> None:
    assert text in ended({"exit": end})
