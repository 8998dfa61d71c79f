"""The agent brought to an ssh host: whole, once, and by several runs at a time."""

from __future__ import annotations

import io
import os
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.others import KINDS, UID, as_other, public, squat
from umlaan.agent import trust
from umlaan.facts import base

__all__ = ["public"]


class SSHConnector:
    """Stands for pyinfra's own: only its name is asked for."""


class Output:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.stdout, self.stderr = done.stdout, done.stderr


class Host:
    """This machine as an ssh host; meanwhile runs when an upload is half through."""

    name = "lab1"

    def __init__(self, meanwhile: Callable[[], Any] = lambda: None, limit: int = 1 << 30) -> None:
        self.connector_data: dict[str, Any] = {}
        self.connector = SSHConnector()
        self.connected = True
        self.meanwhile, self.limit, self.puts = meanwhile, limit, 0

    def run_shell_command(self, command: str, print_output: bool) -> tuple[bool, Output]:
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
        return done.returncode == 0, Output(done)

    def put_file(self, data: io.BytesIO, path: str) -> None:
        self.puts += 1
        content = data.read()[: self.limit]
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            self.meanwhile()
            file.write(content[len(content) // 2 :])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the agent is kept; it is not there yet."""
    monkeypatch.setattr(base, "FOLDER", str(tmp_path / "umlaan/agent"))
    return tmp_path / "umlaan/agent"


def whole(folder: Path) -> None:
    """One file, and it is all of the agent."""
    (path,) = folder.iterdir()
    assert path.read_bytes() == base.agent_zip()
    assert zipfile.ZipFile(path).testzip() is None


def test_it_is_put_once(folder: Path) -> None:
    first, second = Host(), Host()
    assert base.agent(first) == base.agent(first) == base.agent(second)  # type: ignore[arg-type]
    assert (first.puts, second.puts) == (1, 0)
    whole(folder)


def test_a_run_that_comes_in_between_neither_harms_nor_is_harmed(folder: Path) -> None:
    second = Host()
    first = Host(meanwhile=lambda: (base.agent(second), whole_among(folder)))  # type: ignore[arg-type]
    base.agent(first)  # type: ignore[arg-type]
    assert (first.puts, second.puts) == (1, 1)
    whole(folder)


def whole_among(folder: Path) -> None:
    """The second run has its agent although the first one is still writing."""
    (path,) = folder.glob("*.zip")
    assert path.read_bytes() == base.agent_zip()


def test_many_at_once_leave_one_whole_file(folder: Path) -> None:
    barrier = threading.Barrier(4)
    hosts = [Host(meanwhile=lambda: barrier.wait(60)) for _ in range(4)]
    threads = [threading.Thread(target=base.agent, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [host.puts for host in hosts] == [1, 1, 1, 1]
    whole(folder)


def test_a_part_is_never_taken_for_the_whole(folder: Path) -> None:
    with pytest.raises(OSError, match="only a part of it arrived"):
        base.agent(Host(limit=1000))  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []


def path_of(prefix: str) -> Path:
    return Path(prefix.split()[1].removeprefix("PYTHONPATH="))


def test_nobody_else_enters_its_folder(folder: Path) -> None:
    before = os.umask(0)
    try:
        path = path_of(base.agent(Host()))  # type: ignore[arg-type]
    finally:
        os.umask(before)
    assert path.parent == folder
    assert [oct(p.stat().st_mode & 0o777) for p in (folder, path)] == ["0o700", "0o600"]
    assert folder.parent.stat().st_mode & 0o022 == 0


def test_other_content_under_its_name_is_never_run(folder: Path) -> None:
    path = path_of(base.agent(Host()))  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes() + b"more")
    host = Host()
    assert path_of(base.agent(host)) == path  # type: ignore[arg-type]
    assert host.puts == 1
    whole(folder)


def test_one_that_nobody_has_used_for_a_month_goes(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)
    for name, age in (("old.zip", 31), ("cut.new", 31), ("another.zip", 29)):
        (folder / name).write_bytes(b"")
        stamp = time.time() - age * 86400
        os.utime(folder / name, (stamp, stamp))
    path = path_of(base.agent(Host()))  # type: ignore[arg-type]
    assert {p.name for p in folder.iterdir()} == {"another.zip", path.name}


def test_a_machine_without_python_is_asked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    host = Host()
    assert base.agent(host).endswith("python3 -S -m umlaan.agent")  # type: ignore[arg-type]
    assert host.puts == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["umlaan", "umlaan/agent"])
def test_what_another_user_left_under_its_name_is_never_run(
    public: Path, monkeypatch: pytest.MonkeyPatch, what: str, kind: str
) -> None:
    monkeypatch.setattr(base, "FOLDER", str(public / "umlaan/agent"))
    if "/" in what:
        (public / "umlaan").mkdir()
        (public / "umlaan").chmod(0o1777)
    squat(public / what, kind)
    host = Host()
    with pytest.raises(OSError, match="lab1: the agent cannot be put there: "):
        base.agent(host)  # type: ignore[arg-type]
    assert host.puts == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_who_is_not_root_keeps_it_at_home(public: Path) -> None:
    home = public / "home"
    assert as_other(lambda: home.mkdir(mode=0o755)) == ""
    source = (
        Path(trust.__file__)
        .read_text()
        .replace("pwd.getpwuid(os.geteuid()).pw_dir", repr(str(home)))
    )
    done = subprocess.run(
        ["python3", "-I", "-S", "-c", source, "-", "ab" * 32],
        user=UID,
        group=UID,
        extra_groups=[],
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"lacks {home}/.cache/umlaan/agent/{'ab' * 8}.zip\n", done.stderr
    assert (home / ".cache/umlaan/agent").stat().st_uid == UID
