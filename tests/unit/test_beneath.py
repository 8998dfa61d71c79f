"""Paths of a root that is not trusted: its links lead where they would inside of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from umlaan.agent import beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "usr/sbin").mkdir(parents=True)
    (top / "usr/sbin/tool").write_text("tool")
    (top / "usr/sbin/tool").chmod(0o755)
    (top / "sbin").symlink_to("usr/sbin")
    (top / "absolute").symlink_to("/usr/sbin")
    (top / "up").symlink_to("../../../../usr/sbin/../../../usr/sbin")
    (top / "out").symlink_to(tmp_path / "outside")
    (top / "loop").symlink_to("loop")
    (top / "self").symlink_to("/")
    (top / "file").symlink_to(tmp_path / "outside/file")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("the machine's")
    (outside / "file").chmod(0o755)
    return top


@pytest.mark.parametrize(
    "path",
    [
        *("usr/sbin/tool", "/usr/sbin/tool", "sbin/tool", "absolute/tool", "up/tool"),
        *("self/self/sbin/tool", "../../usr/sbin/tool", "usr/../sbin/./tool", "//usr//sbin//tool"),
    ],
)
def test_links_lead_inside(root: Path, path: str) -> None:
    assert beneath.is_program(str(root), path)
    found = beneath.look(str(root), path)
    assert found is not None
    assert found.st_ino == (root / "usr/sbin/tool").stat().st_ino


@pytest.mark.parametrize(
    "path", ["out/file", "file", "loop", "loop/x", "usr/sbin/tool/x", "none/x"]
)
def test_nothing_outside_is_seen(root: Path, path: str) -> None:
    assert beneath.look(str(root), path, follow=True) is None
    assert not beneath.is_program(str(root), path)


def test_folders_are_no_links(root: Path) -> None:
    assert beneath.is_folder(str(root), "usr")
    assert beneath.is_folder(str(root), "/")
    assert beneath.is_folder(str(root), "sbin/..")
    for path in ("out", "sbin", "self", "loop", "usr/sbin/tool", "none"):
        assert not beneath.is_folder(str(root), path)


def test_nothing_outside_is_written_or_removed(root: Path) -> None:
    outside = root.parent / "outside"
    for path in ("out/new", "out/file"):
        with pytest.raises(FileNotFoundError):
            beneath.create(str(root), path, b"x", 0o755)
        beneath.remove_if(str(root), path, b"the machine's")
    assert not beneath.create(str(root), "file", b"x", 0o755)
    beneath.remove_if(str(root), "file", b"the machine's")
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_text() == "the machine's"


def test_a_new_file_and_its_end(root: Path) -> None:
    assert beneath.create(str(root), "absolute/new", b"ours", 0o755)
    new = root / "usr/sbin/new"
    assert (new.read_bytes(), new.stat().st_mode & 0o777) == (b"ours", 0o755)
    assert not beneath.create(str(root), "sbin/new", b"other", 0o644)
    beneath.remove_if(str(root), "sbin/new", b"our")
    beneath.remove_if(str(root), "sbin/new", b"oursx")
    assert new.read_bytes() == b"ours"
    beneath.remove_if(str(root), "sbin/new", b"ours")
    assert not new.exists()


def test_a_fifo_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "fifo")
    beneath.remove_if(str(root), "fifo", b"")
    assert (root / "fifo").exists()


def test_what_leads_outside_is_not_copied(root: Path, tmp_path: Path) -> None:
    beneath.copy(str(root), "sbin/tool", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "tool"
    os.mkfifo(root / "fifo")
    for path in ("file", "out/file", "../outside/file", "loop", "fifo", "usr"):
        with pytest.raises(OSError):
            beneath.copy(str(root), path, str(tmp_path / "no"))
    assert not (tmp_path / "no").exists()
