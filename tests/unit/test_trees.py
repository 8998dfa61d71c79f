"""Layers of source: laid over one another, and one tree of our own brought to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from umlaan.agent import index, trees


def fill(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return fill(tmp_path / "base", {"Makefile": "VERSION = 4\n", "ipc/msg.c": "msg\n", "a": "a\n"})


def rows(root: Path) -> trees.Rows:
    return trees.rows(str(root), str(root.parent / "cache"))


def test_leftovers_of_a_build_are_no_source(base: Path) -> None:
    before = trees.tree_hash(rows(base))
    left = {".config": "x", "vmlinux": "x", "ipc/msg.o": "x", "ipc/.msg.o.cmd": "x"}
    fill(base, {**left, "include/generated/autoconf.h": "x", "include/config/auto.conf": "x"})
    fill(base, {".git/HEAD": "ref", "System.map": "x", "Module.symvers": "", "ipc/built-in.a": "x"})
    assert trees.tree_hash(rows(base)) == before


def test_a_work_trees_link_to_its_repository_is_no_source(base: Path) -> None:
    before = trees.tree_hash(rows(base))
    # With it setlocalversion would ask that repository, and the release be another one.
    fill(base, {".git": "gitdir: /home/me/linux/.git/worktrees/mine\n"})
    assert trees.tree_hash(rows(base)) == before


def test_content_mode_and_links_change_the_hash(base: Path) -> None:
    seen = {trees.tree_hash(rows(base))}
    (base / "a").chmod(0o755)
    seen.add(trees.tree_hash(rows(base)))
    (base / "link").symlink_to("a")
    seen.add(trees.tree_hash(rows(base)))
    (base / "a").write_text("b\n")
    seen.add(trees.tree_hash(rows(base)))
    assert len(seen) == 4


def test_overlays_lie_in_order_and_a_file_may_replace_a_folder(base: Path, tmp_path: Path) -> None:
    one = fill(tmp_path / "one", {"ipc/msg.c": "one\n", "ipc/dvk.c": "one\n"})
    two = fill(tmp_path / "two", {"ipc/msg.c": "two\n"})
    three = fill(tmp_path / "three", {"ipc": "now a file\n"})
    laid = trees.lay(trees.lay(rows(base), rows(one)), rows(two))
    assert Path(laid["ipc/msg.c"].origin).read_text() == "two\n"
    assert Path(laid["ipc/dvk.c"].origin).read_text() == "one\n"
    flat = trees.lay(laid, rows(three))
    assert [n for n in flat if n.startswith("ipc")] == ["ipc"]


def test_sync_writes_only_what_differs(base: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert trees.sync(str(tree), rows(base), share=False) == []
    assert (tree / "ipc/msg.c").read_text() == "msg\n"
    os.utime(tree / "a", (1, 1))
    trees.sync(str(tree), rows(base), share=False)
    times = {p: p.stat().st_mtime_ns for p in tree.rglob("*") if p.is_file()}
    over = fill(tmp_path / "over", {"ipc/msg.c": "other\n", "a": "a\n"})
    changed = trees.sync(str(tree), trees.lay(rows(base), rows(over)), share=False)
    assert changed == ["ipc/msg.c"]
    assert (tree / "ipc/msg.c").read_text() == "other\n"
    assert (tree / "a").stat().st_mtime_ns == times[tree / "a"]
    # Back to the base: make must see a new time, although the base's file is an old one.
    then = (tree / "ipc/msg.c").stat().st_mtime_ns
    assert trees.sync(str(tree), rows(base), share=False) == ["ipc/msg.c"]
    assert (tree / "ipc/msg.c").stat().st_mtime_ns >= then


def test_sync_repairs_a_tree_that_was_left_half_done(base: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    trees.sync(str(tree), rows(base), share=False)
    (tree / "a").write_text("damaged\n")
    (tree / "a.umlaan-new").write_text("half")
    (tree / "ipc/msg.c").unlink()
    (tree / "extra").mkdir()
    (tree / "extra/file.c").write_text("x")
    (tree / "Makefile").chmod(0o755)
    changed = trees.sync(str(tree), rows(base), share=False)
    assert {"a", "ipc/msg.c", "Makefile", "extra/file.c"} <= set(changed)
    assert trees.tree_hash(rows(tree)) == trees.tree_hash(rows(base))
    assert trees.sync(str(tree), rows(base), share=False) == []


def test_a_shared_tree_links_once_and_never_writes_through(base: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    known = trees.rows(str(base), "", known="key")
    trees.sync(str(tree), known, share=True)
    assert (tree / "a").samefile(base / "a")
    over = fill(tmp_path / "over", {"a": "mine\n"})
    trees.sync(str(tree), trees.lay(known, rows(over)), share=True)
    assert (tree / "a").read_text() == "mine\n"
    assert (base / "a").read_text() == "a\n"
    trees.sync(str(tree), known, share=True)
    assert (tree / "a").read_text() == "a\n"
    assert not (tree / "a").samefile(base / "a")


def test_links_and_modes_arrive(base: Path, tmp_path: Path) -> None:
    (base / "run.sh").write_text("#!/bin/sh\n")
    (base / "run.sh").chmod(0o755)
    (base / "link").symlink_to("run.sh")
    tree = tmp_path / "tree"
    trees.sync(str(tree), rows(base), share=False)
    assert os.access(tree / "run.sh", os.X_OK)
    assert os.readlink(tree / "link") == "run.sh"


def test_a_checkout_with_another_umask_is_not_said_to_be_changed() -> None:
    """Only the executable bit counts for the hash, so only what counts is named."""
    before = {"a.c": ["file", 0o664, "1"], "run": ["file", 0o775, "2"], "old": ["dir", 0o755, ""]}
    now = {"a.c": ["file", 0o600, "1"], "run": ["file", 0o600, "2"], "new": ["dir", 0o700, ""]}
    assert index.differing(before, now) == ["new", "old", "run"]
