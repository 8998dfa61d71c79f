"""File systems told by their superblocks, and roots by what is in them; images made for real."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from umlaan.agent import extfs, root, sandbox


def image(path: Path, *words: str, size: int = 8 << 20) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *words, str(path)], check=True)
    return path


def test_a_clean_file_system_and_a_cut_off_one(tmp_path: Path) -> None:
    disk = image(tmp_path / "disk")
    assert extfs.look(str(disk)) == {"state": "clean", "bytes": 8 << 20, "size": 8 << 20}
    os.truncate(disk, 4 << 20)
    assert extfs.look(str(disk)) == {"state": "clean", "bytes": 8 << 20, "size": 4 << 20}


@pytest.mark.parametrize(
    ("words", "set_word", "state"),
    [
        ([], "set_super_value state 3", "errors"),
        ([], "feature needs_recovery", "journal"),
        (["-O", "^has_journal"], "set_super_value state 0", "unclean"),
    ],
)
def test_how_it_ended(tmp_path: Path, words: list[str], set_word: str, state: str) -> None:
    disk = image(tmp_path / "disk", *words)
    done = subprocess.run(["debugfs", "-w", "-R", set_word, str(disk)], capture_output=True)
    assert done.returncode == 0
    found = extfs.look(str(disk))
    assert found is not None and found["state"] == state


def test_what_is_no_ext_file_system(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "zero").write_bytes(bytes(8192))
    assert extfs.look(str(tmp_path / "short")) is None
    assert extfs.look(str(tmp_path / "zero")) is None
    subprocess.run(["truncate", "-s", "1M", str(tmp_path / "swap")], check=True)
    subprocess.run(["mkswap", "-q", str(tmp_path / "swap")], check=True)
    assert extfs.type_of(str(tmp_path / "swap")) == "swap"


def test_a_system_is_told_from_a_data_partition(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "usr" / "sbin").mkdir(parents=True)
    (top / "sbin").symlink_to("usr/sbin")
    (top / "usr" / "sbin" / "init").write_text("x")
    assert extfs.holds(str(image(tmp_path / "a", "-d", str(top))), "/sbin/init") is True
    assert extfs.holds(str(image(tmp_path / "b")), "/sbin/init") is False


def test_errors_that_are_safe_to_repair_are(tmp_path: Path) -> None:
    disk = image(tmp_path / "disk")
    words = ["debugfs", "-w", "-R", "set_super_value state 3", str(disk)]
    subprocess.run(words, check=True, capture_output=True)
    spec = {"cache": str(tmp_path), "nodes": {"node1": {"path": str(disk), "made": None}}}
    before = root.state(spec)["nodes"]["node1"]
    assert (before["kind"], before["file_system"]["state"]) == ("image", "errors")
    root.check(spec, "node1")
    after = extfs.look(str(disk))
    assert after is not None and after["state"] == "clean"
    assert json.dumps(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_who_reads_a_made_up_file_system_has_the_image_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a debugfs, blkid and e2fsck that the image has got into its hands."""
    disk = image(tmp_path / "disk")
    (tmp_path / "other").write_text("kept")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        taken = Path(folder, "debugfs")
        taken.write_text(
            f"#!/bin/sh\nls {tmp_path} /run >&2\n"
            f"echo evil >{folder}/owned; echo evil >/proc/1/root{tmp_path}/other; rm {folder}/*\n"
            f'for last in "$@"; do :; done; echo evil >"$last"\n'
            "grep -c : /proc/net/dev; exit 3\n"
        )
        taken.chmod(0o755)
        for name in ("blkid", "e2fsck"):
            Path(folder, name).symlink_to(taken)
        before = sorted(os.listdir(folder))
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        was = disk.read_bytes()
        assert extfs.holds(str(disk), "/sbin/init") is None
        assert extfs.type_of(str(disk)) == "1"
        assert disk.read_bytes() == was
        done = extfs.repair(str(disk))
        assert (done.code, done.output) == (3, "1\n")
        assert "other" not in done.errors
        # What it is to repair it can spoil, nothing else.
        assert disk.read_bytes() != was
        assert sorted(os.listdir(folder)) == before
    assert (tmp_path / "other").read_text() == "kept"


def test_what_is_not_come_to_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="execvp no-such-program"):
        sandbox.run_tool(["no-such-program"], str(image(tmp_path / "disk")), seconds=20)
