"""Source trees in layers: what a tree holds, and one of our own brought to what it should hold.

A layer is {relative path: row}. Base, overlays and patched files are laid over one another as
rows; only then is our own tree written, file by file, beside and renamed, and only where content
differs, so that make stays incremental and an interrupted run is repaired by the next.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import marshal
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

from umlaan.agent.atomic import name_beside, new_folder, sync_below
from umlaan.agent.files import read_json, write_json
from umlaan.agent.index import GONE, RACY_NS, Index

# What an in-tree build or an editor leaves; never part of a source.
_LEFT = re.compile(
    r"\.(o|ko|a|so|cmd|mod|mod\.c|order|symvers|dwo|su|orig|rej|swp)$|~$|^\.tmp_|^\.config"
    # A work tree's or a submodule's link to its repository is a file of that name.
    r"|^\.git$|^(vmlinux|linux|System\.map|Module\.symvers|\.version|modules\.builtin.*|tags|TAGS)$"
)
_LEFT_DIRS = re.compile(
    r"^(.*/)?\.git$|^include/(config|generated)$|^arch/\w+/include/generated$|^\.tmp_versions$"
)


class Row(NamedTuple):
    """One entry of a tree."""

    kind: str  # file, link or dir
    executable: bool
    content: str  # a hash, or a link's target
    root: str  # its bytes are in this folder, under this name
    name: str

    @property
    def origin(self) -> str:
        """Where its bytes are."""
        return f"{self.root}/{self.name}"


Rows = dict[str, Row]


def _walk(root: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    todo = [""]
    while todo:
        below = todo.pop()
        with (
            contextlib.suppress(*(GONE if below else ())),
            os.scandir(f"{root}/{below}" if below else root) as listing,
        ):
            for item in listing:
                relative = f"{below}/{item.name}" if below else item.name
                if item.is_dir(follow_symlinks=False):
                    if _LEFT_DIRS.search(relative):
                        continue
                    todo.append(relative)
                elif _LEFT.search(item.name):
                    continue
                yield relative, item


def rows(root: str, cache: str, known: str | None = None) -> Rows:
    """What a tree holds, build leftovers left out; only what moved is read again.

    known names the content of a tree that never changes: nothing of it is read then.
    """
    out: Rows = {}
    index = None if known else Index(cache, root)
    for relative, item in _walk(root):
        # An editor's or a compiler's file may go while it is looked at.
        with contextlib.suppress(*GONE):
            info = item.stat(follow_symlinks=False)
            path = f"{root}/{relative}"
            if stat.S_ISREG(info.st_mode):
                digest = index.digest(relative, path, info) if index else f"{known}:{relative}"
                out[relative] = Row("file", bool(info.st_mode & 0o100), digest, root, relative)
            elif stat.S_ISLNK(info.st_mode):
                out[relative] = Row("link", False, os.readlink(path), root, relative)
            elif stat.S_ISDIR(info.st_mode):
                out[relative] = Row("dir", True, "", root, relative)
    if index:
        index.save()
    return out


def tree_hash(tree: Rows) -> str:
    """One hash over paths, kinds, executable bits and content; folders count by what they hold."""
    digest = hashlib.sha256()
    for name in sorted(tree):
        row = tree[name]
        if row.kind != "dir":
            digest.update(os.fsencode(f"{name}\0{row.kind}\0{row.executable:d}\0{row.content}\n"))
    return digest.hexdigest()


def content_hash(root: str, cache: str) -> str:
    """tree_hash of what a directory holds; where no file's times moved, as it was last time."""
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:24]
    kept_in, started = f"{cache}/index/{name}.tree", time.time_ns()
    signature, newest = _signature(root)
    kept = read_json(kept_in)
    if isinstance(kept, dict) and kept.get("signature") == signature:
        return str(kept["hash"])
    digest = tree_hash(rows(root, cache))
    # What changed just now may change again without its times showing it.
    if newest < started - RACY_NS:
        with contextlib.suppress(OSError):
            # Like the index: one that cannot be kept is no fault.
            write_json(kept_in, {"signature": signature, "hash": digest})
    return digest


def _signature(root: str) -> tuple[str, int]:
    """One hash over names, sizes, times, inodes and modes, and the newest of the times."""
    digest, newest, todo = hashlib.sha256(), 0, [""]
    while todo:
        below = todo.pop()
        seen: list[tuple[str, int, int, int, int, int]] = []
        with (
            contextlib.suppress(*(GONE if below else ())),
            os.scandir(f"{root}/{below}" if below else root) as listing,
        ):
            for item in listing:
                if item.is_dir(follow_symlinks=False):
                    relative = f"{below}/{item.name}" if below else item.name
                    if not _LEFT_DIRS.search(relative):
                        todo.append(relative)
                    continue
                try:
                    info = item.stat(follow_symlinks=False)
                except GONE:
                    continue
                changed = info.st_ctime_ns
                if changed > newest:
                    newest = changed
                size, ino, mode = info.st_size, info.st_ino, info.st_mode
                seen.append((item.name, size, info.st_mtime_ns, changed, ino, mode))
        digest.update(marshal.dumps((below, seen)))
    return digest.hexdigest(), newest


def lay(base: Rows, over: Rows) -> Rows:
    """The base with a layer over it; a file may take the place of a folder and the other way."""
    out = dict(base)
    for name, row in over.items():
        before = out.get(name)
        if before and before.kind == "dir" and row.kind != "dir":
            for below in [n for n in out if n.startswith(f"{name}/")]:
                del out[below]
        out[name] = row
    return out


def sync(tree: str, wanted: Rows, share: bool) -> list[str]:
    """Bring a tree of our own to what is wanted; the paths whose content changed.

    share allows hard links into a new tree, where the origin is a tree of our own that never
    changes. The first time it is made beside and renamed.
    """
    record_path = f"{tree}.rows"
    if not os.path.isdir(tree):
        with new_folder(tree) as beside:
            record = _bring(beside, wanted, {}, share, [])
            write_json(record_path, record)
        return []
    changed: list[str] = []
    known = read_json(record_path)
    record = _bring(tree, wanted, known if isinstance(known, dict) else {}, False, changed)
    extra = [(name, item) for name, item in _walk(tree) if name not in wanted]
    for name, item in sorted(extra, key=lambda pair: pair[0], reverse=True):
        changed.append(name)
        if item.is_dir(follow_symlinks=False):
            shutil.rmtree(item.path)
        else:
            os.unlink(item.path)
    if record != known:
        # What is on record is not read again: it is on disk before.
        sync_below(tree)
        write_json(record_path, record)
    return changed


def _bring(
    tree: str, wanted: Rows, known: dict[str, list[object]], share: bool, changed: list[str]
) -> dict[str, list[object]]:
    record: dict[str, list[object]] = {}
    for name in sorted(wanted):
        row, path = wanted[name], f"{tree}/{name}"
        there = _lstat(path)
        if row.kind == "dir":
            if there is None or not stat.S_ISDIR(there.st_mode):
                _clear(path, there)
                os.mkdir(path)
            continue
        if there and known.get(name) == _seen(row, there):
            record[name] = known[name]
            continue
        if not (there and _equal(path, there, row)):
            _clear(path, there if there and stat.S_ISDIR(there.st_mode) else None)
            _write(path, row, share)
            changed.append(name)
        record[name] = _seen(row, os.lstat(path))
    return record


def _seen(row: Row, info: os.stat_result) -> list[object]:
    mode = info.st_mode & 0o111
    return [row.content, row.executable, mode, info.st_size, info.st_mtime_ns, info.st_ino]


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _clear(path: str, there: os.stat_result | None) -> None:
    if there is None:
        return
    if stat.S_ISDIR(there.st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _equal(path: str, there: os.stat_result, row: Row) -> bool:
    if row.kind == "link":
        return stat.S_ISLNK(there.st_mode) and os.readlink(path) == row.content
    if not stat.S_ISREG(there.st_mode) or bool(there.st_mode & 0o100) != row.executable:
        return False
    return filecmp.cmp(path, row.origin, shallow=False)


def _write(path: str, row: Row, share: bool) -> None:
    beside = name_beside(path)
    if row.kind == "link":
        os.symlink(row.content, beside)
    elif share:
        os.link(row.origin, beside)
    else:
        # A new time on purpose: make must see that the content is another one.
        shutil.copyfile(row.origin, beside)
        os.chmod(beside, 0o755 if row.executable else 0o644)
    os.rename(beside, path)
