"""The agent brought to an ssh host: whole, once, and by several runs at a time."""

from __future__ import annotations

import io
import os
import subprocess
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from umlaan.facts import base


class SSHConnector:
    """Stands for pyinfra's own: only its name is asked for."""


class Output:
    def __init__(self, stderr: str) -> None:
        self.stderr = stderr


class Host:
    """This machine as an ssh host; meanwhile runs when an upload is half through."""

    name = "lab1"

    def __init__(self, meanwhile: Callable[[], Any] = lambda: None, limit: int = 1 << 30) -> None:
        self.connector_data: dict[str, Any] = {}
        self.connector = SSHConnector()
        self.connected = True
        self.meanwhile, self.limit, self.puts = meanwhile, limit, 0

    def run_shell_command(self, command: str, print_output: bool) -> tuple[bool, Output]:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        return done.returncode == 0, Output(done.stderr)

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
    monkeypatch.setattr(base, "FOLDER", str(tmp_path))
    return tmp_path


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


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
@pytest.mark.parametrize("link", [False, True])
def test_what_another_user_left_under_its_name_is_never_run(folder: Path, link: bool) -> None:
    path = Path(base.agent(Host()).split()[1].removeprefix("PYTHONPATH="))  # type: ignore[arg-type]
    if link:
        (folder / "elsewhere").write_text("theirs")
        path.unlink()
        path.symlink_to(folder / "elsewhere")
    else:
        path.write_text("theirs")
        os.chown(path, 65534, 65534)
    host = Host()
    base.agent(host)  # type: ignore[arg-type]
    assert host.puts == 1
    assert path.read_bytes() == base.agent_zip()
    assert path.lstat().st_uid == 0
