"""The agent's verbs end what they began and say why they cannot, in any locale."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.uml import REPOSITORY, agent, until
from umlaan.agent import files, proc, run
from umlaan.agent.__main__ import with_sbin


def test_a_command_ends_where_nobody_reads_its_progress_any_more(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    words = ["-m", "umlaan.agent", "run", "--step", "Build", "--log", str(tmp_path / "log"), "--"]
    script = f"echo $$ >{mark}.new; mv {mark}.new {mark}; echo 'umlaan: begun'; exec sleep 1000"
    with subprocess.Popen(
        [sys.executable, *words, "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        until(mark.exists)
        pid = int(mark.read_text())
        assert process.wait(30) == 143
    found = proc.process(pid)
    assert found is None or found.dead


def test_a_log_that_goes_does_not_leave_the_command_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "EVERY_S", 0.0)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    mark = tmp_path / "mark"
    script = f"echo $$ >{mark}.new; mv {mark}.new {mark}; rm {tmp_path}/log; exec sleep 1000"
    with pytest.raises(FileNotFoundError):
        run.run("Build", ["sh", "-c", script], str(tmp_path / "log"), "lines")
    found = proc.process(int(mark.read_text()))
    assert found is None or found.dead


def test_a_log_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    words = ["--step", "UML kernel", "--log", str(tmp_path / "log/kernel.log"), "--", "true"]
    done = agent("run", *words)
    assert done.returncode == 1
    assert done.stderr.startswith("UML kernel: not done: [Errno ")
    assert f"its log is {tmp_path}/log/kernel.log" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_progress_is_told_in_any_locale(tmp_path: Path, encoding: str) -> None:
    script = "echo 'umlaan: ‘größer’'; echo 'error: ‘x’ is missing'; exit 3"
    words = ["-m", "umlaan.agent", "run", "--step", "Build", "--log", str(tmp_path / "log"), "--"]
    done = subprocess.run(
        [sys.executable, *words, "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 3, done.stderr.decode()
    assert "Build: ‘größer’" in done.stdout.decode()
    assert "error: ‘x’ is missing" in done.stderr.decode()


def test_a_lock_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = agent("lock", "--path", str(tmp_path / "file/lab.lock"), "--holder", "me", text="")
    assert done.returncode == 1
    assert done.stdout.startswith("no lock: [Errno ")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "state/nodes").mkdir(parents=True)
    spec = json.dumps({"state_dir": str(tmp_path / "state")})
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(tmp_path), "-", sys.executable]
        + ["-m", "umlaan.agent", "remove", "do", spec],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("not all was removed: [Errno 30] Read-only file system")
    assert "Traceback" not in done.stderr


def test_keys_are_made_whole_or_not_at_all(tmp_path: Path) -> None:
    spec = {"dir": str(tmp_path / "ssh"), "lab": "umlaan", "nodes": {"node1": "192.168.1.101"}}
    # What a killed run left.
    (tmp_path / "ssh").mkdir()
    (tmp_path / "ssh/id_ed25519.new").write_text("")
    (tmp_path / "ssh/id_ed25519.new.pub").write_text("")
    done = agent("keys", "make", spec)
    assert done.returncode == 0, done.stderr
    assert json.loads(agent("keys", "state", spec).stdout) == []
    assert not list((tmp_path / "ssh").glob("*.new*"))
    before = (tmp_path / "ssh/id_ed25519").read_bytes()
    (tmp_path / "ssh/id_ed25519.pub").unlink()
    assert agent("keys", "make", spec).returncode == 0
    assert (tmp_path / "ssh/id_ed25519").read_bytes() == before
    assert json.loads(agent("keys", "state", spec).stdout) == []


def test_a_key_that_is_none_is_named_with_its_remedy(tmp_path: Path) -> None:
    spec = {"dir": str(tmp_path), "lab": "umlaan", "nodes": {}}
    (tmp_path / "id_ed25519").write_text("")
    done = agent("keys", "make", spec)
    assert done.returncode == 1
    assert f"remove {tmp_path}/id_ed25519 to have it made anew" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_meter_reads_all_that_this_command_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    log = tmp_path / "log"
    log.write_text("umlaan: of an earlier command\n")
    assert run.run("Build", ["echo", "umlaan: said at once"], str(log), "lines") == 0
    assert capsys.readouterr().out == "Build: said at once\n"


def test_who_waited_for_a_lock_begins_nothing_once_its_caller_is_gone(tmp_path: Path) -> None:
    lock, pid, mark = (tmp_path / name for name in ("lock", "pid", "mark"))
    words = ["-m", "umlaan.agent", "run", "--step", "Build", "--log", str(tmp_path / "log")]
    words += ["--lock", str(lock), "--", "touch", str(mark)]
    python = shlex.join([sys.executable, *words])
    with files.locked(str(lock), "another build"):
        caller = subprocess.Popen(
            ["sh", "-c", f"{python} & echo $! >{pid}.new; mv {pid}.new {pid}; wait"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        until(pid.exists)
        waiting = int(pid.read_text())
        assert caller.stderr is not None
        assert b"waits for another build" in caller.stderr.readline()
        caller.kill()
        caller.wait()
        caller.stderr.close()
    until(lambda: (found := proc.process(waiting)) is None or found.dead)
    assert not mark.exists()


def test_ctrl_c_does_not_take_the_labs_lock_from_its_run(tmp_path: Path) -> None:
    path = str(tmp_path / "lab.lock")
    with subprocess.Popen(
        [sys.executable, "-m", "umlaan.agent", "lock", "--path", path, "--holder", "the run"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        holder.send_signal(signal.SIGINT)
        # Taken in before the end of its input is: signals come first.
        with pytest.raises(TimeoutError, match="is held by the run"), files.locked(path, "other"):
            pass
        holder.stdin.close()
        assert holder.wait(30) == 0


def test_the_systems_tools_are_found_where_su_left_them_out() -> None:
    assert with_sbin("/usr/bin:/bin") == "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    assert with_sbin("") == "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    spec = {"state_dir": "/", "cache_dir": "/", "namespace": False, "pid_namespace": False}
    spec |= {"paths": [], "memory_folders": []}
    done = subprocess.run(
        [sys.executable, "-m", "umlaan.agent", "probe", json.dumps(spec)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)["commands"]["losetup"]
    assert found == shutil.which("losetup", path="/usr/sbin:/sbin:/usr/bin:/bin")
