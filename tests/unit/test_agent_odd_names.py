"""Names with blanks or in other encodings, what UML cannot take, caches that are full."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import baseimage, index, kernel_state, live, root, service, trees, verify
from umlaan.facts import base as facts

ODD = os.fsdecode(b"caf\xe9.c")


def test_a_tree_may_hold_names_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    plain = trees.content_hash(str(tmp_path / "tree"), str(tmp_path / "cache"))
    (tmp_path / "tree" / ODD).write_text("int a;\n")
    odd = trees.content_hash(str(tmp_path / "tree"), str(tmp_path / "cache"))
    assert plain != odd


class Vanishing:
    """Stands for os in a module: a file goes, or a folder, once it was listed."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def scandir(self, path: str) -> Any:
        listing = list(os.scandir(path))
        for gone in self.paths:
            if str(gone.parent) == path:
                shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
        return contextlib.nullcontext(listing)


@pytest.mark.parametrize("module", ["index", "trees", "rows"])
def test_what_goes_while_a_tree_is_read_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    tree, cache = tmp_path / "tree", str(tmp_path / "cache")
    (tree / "lib").mkdir(parents=True)
    (tree / "lib/a.c").write_text("int a;\n")
    looks: dict[str, Any] = {
        "rows": lambda: trees.tree_hash(trees.rows(str(tree), cache)),
        "index": lambda: index.content(str(tree), frozenset(), cache),
        "trees": lambda: trees.content_hash(str(tree), cache),
    }
    before = looks[module]()
    (tree / "lib/cc1.tmp").write_text("half")
    (tree / "lib/link").symlink_to("a.c")
    (tree / "tmp").mkdir()
    gone = (tree / "lib/cc1.tmp", tree / "lib/link", tree / "tmp")
    for one in (index, trees):
        monkeypatch.setattr(one, "os", Vanishing(*gone))
    assert looks[module]() == before
    assert not any(path.exists() for path in gone)


def test_a_guest_is_asked_for_such_a_name_byte_for_byte(tmp_path: Path) -> None:
    stamp = tmp_path / "ipc.stamp.json"
    row = ["file", 0o644, "0" * 64]
    stamp.write_text(json.dumps({"bytes": 7, "manifest": {ODD: row}}))
    guest = {"ssh": ["sh", "-c", "cat"], "state": "/s", "tree": "/t", "stamp": str(stamp)}
    asked = live.Asked("node1", guest)
    assert asked.program.process.communicate(timeout=30)[0] == b"0" * 64 + b"  caf\xe9.c\n"
    asked_text = f"{'0' * 64}  {ODD}\n"
    assert verify.run(["sh", "-c", "od -An -c | grep -c 351"], asked_text) == (0, "1\n")


def test_verify_quotes_the_trees_place(tmp_path: Path) -> None:
    (tmp_path / "my dvs").mkdir()
    spec: dict[str, Any] = {
        "node0": {"address": "127.0.0.1"},
        "dvs": {"dest": str(tmp_path / "my dvs"), "compared": True, "stamp": ""},
        "pairs": None,
    }
    done = subprocess.run(
        ["sh", "-c", verify.guest_script(spec).replace("ping -n", "true")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "bad" not in done.stdout


def test_a_full_cache_keeps_no_state_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kernel_state, "write_json", full)
    monkeypatch.setattr(trees, "write_json", full)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.c").write_text("int a;\n")
    # What changed just now would not be kept in any case.
    monkeypatch.setattr(trees, "RACY_NS", -(10**18))
    assert trees.content_hash(str(tmp_path / "tree"), str(tmp_path / "cache"))
    assert "ld" in str(kernel_state.compiler("ld", str(tmp_path / "cache")))


def test_two_caches_make_the_same_image_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseimage, "MEMORY", str(tmp_path))
    monkeypatch.setattr(baseimage, "_roomy", lambda: True)
    with baseimage.scratch("/a/base/KEY.work") as one, baseimage.scratch("/b/base/KEY.work") as two:
        assert one != two
        assert os.path.isdir(os.path.dirname(one))
        assert os.path.isdir(os.path.dirname(two))
    assert os.listdir(tmp_path) == []


def test_a_killed_copy_leaves_its_room_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "node1/root.ext4"
    path.parent.mkdir()
    made = {"suite": "bookworm", "arch": "amd64", "mirror": None, "packages": [], "bytes": 4096}
    spec = {"cache": str(tmp_path), "nodes": {"node1": {"path": str(path), "made": made}}}
    home = Path(baseimage.folder(str(tmp_path), made))
    home.mkdir(parents=True)
    (home / "root.ext4").write_bytes(b"x" * 4096)
    (home / "stamp.json").write_text('{"size": 4096}')
    left = tmp_path / "node1/root.ext4.new"
    left.write_bytes(b"half")
    room = os.statvfs

    def statvfs(folder: str) -> os.statvfs_result:
        found = list(room(folder))
        if left.exists():
            found[4] = 0
        return os.statvfs_result(found)

    monkeypatch.setattr(root.os, "statvfs", statvfs)
    root.make(spec, "node1")
    assert path.read_bytes() == b"x" * 4096


def test_a_log_that_cannot_be_turned_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = service.Log(str(tmp_path / "one.log"))

    def full() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(log, "_open", full)
        with pytest.raises(OSError, match="No space"):
            log.turn()
    log.say("still here")
    assert "still here" in (tmp_path / "one.log.1").read_text()
    log.close()


def test_the_checkout_may_stand_in_a_folder_with_a_blank_and_be_used_from_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "my 'own' checkout"
    home.mkdir()
    (home / "umlaan").symlink_to(facts.PACKAGE)
    monkeypatch.setattr(facts, "PACKAGE", home / "umlaan")

    class LocalConnector:
        pass

    class Host:
        connector = LocalConnector()
        connector_data: dict[str, object] = {}

    # A user's own files in the current folder, and another checkout, are not the real ones.
    (tmp_path / "cwd/umlaan/agent").mkdir(parents=True)
    for name in ("random.py", "argparse.py", "umlaan/__init__.py", "umlaan/agent/__init__.py"):
        (tmp_path / "cwd" / name).write_text("raise SystemExit('the wrong file')\n")
    words = f"{facts.agent(Host())} hash --cache {tmp_path} /nowhere"  # type: ignore[arg-type]
    done = subprocess.run(
        ["sh", "-c", words], cwd=tmp_path / "cwd", capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == {"/nowhere": None}, done.stderr
    assert sys.executable in words


@pytest.mark.parametrize("safe", ["1", ""])
def test_an_agent_starts_itself_as_safely_as_it_was_started(safe: str) -> None:
    script = "from umlaan.agent import itself; print(' '.join(itself('lock')[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(facts.PACKAGE.parent), "PYTHONSAFEPATH": safe},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{'-P ' if safe else ''}-S -m umlaan.agent lock\n"
