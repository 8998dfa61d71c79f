"""Content hashes of files and trees through an index: only what moved is read again.

``hash --cache DIR [--exclude NAME]… PATH…`` prints ``{path: {"hash": …, "files": n, "bytes": n}}``,
null for a path that is not there. An entry is trusted while size, mtime, ctime, inode and mode are
the same and its times lie clearly before the moment in which it was read.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import marshal
import os
import stat
import time
from typing import Any

from umlaan.agent.files import write_atomic

# A file changed within this time of being read may change again without its times showing it.
RACY_NS = 2_000_000_000
# What a look at a file says where another program has just removed it.
GONE = (FileNotFoundError, NotADirectoryError)
Entry = tuple[int, int, int, int, int, str]


def hash_file(path: str) -> str:
    """sha256 of a file's bytes. OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Index:
    """What was read before, by path, for one tree."""

    def __init__(self, cache: str, root: str) -> None:
        name = hashlib.sha256(root.encode(errors="surrogateescape")).hexdigest()[:24]
        self.path = f"{cache}/index/{name}"
        self.old: dict[str, Entry] = {}
        self.new: dict[str, Entry] = {}
        self.read = 0
        try:
            with open(self.path, "rb") as file:
                loaded = marshal.loads(file.read())
            if isinstance(loaded, dict):
                self.old = loaded
        except (OSError, ValueError, EOFError, TypeError):
            self.old = {}

    def digest(self, key: str, path: str, info: os.stat_result) -> str:
        """The file's hash, read only if it moved since the last time."""
        seen = self.old.get(key)
        now = (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode)
        if seen is not None and seen[:5] == now:
            self.new[key] = seen
            return seen[5]
        before = time.time_ns()
        digest = hash_file(path)
        self.read += 1
        if max(info.st_mtime_ns, info.st_ctime_ns) < before - RACY_NS:
            self.new[key] = (*now, digest)
        return digest

    def save(self) -> None:
        """Keep what was read for the next time; an index that cannot be kept is no fault."""
        if self.new == self.old:
            return
        try:
            write_atomic(self.path, marshal.dumps(self.new))
        except OSError:
            return


def entries(root: str, exclude: frozenset[str]) -> list[tuple[str, os.stat_result]]:
    """(relative path, lstat) of all below root in a fixed order, excluded names left out.

    What goes while it is looked at, as an editor's or a compiler's files do, was not there.
    """
    found: list[tuple[str, os.stat_result]] = []
    todo = [""]
    while todo:
        below = todo.pop()
        with (
            contextlib.suppress(*(GONE if below else ())),
            os.scandir(f"{root}/{below}" if below else root) as listing,
        ):
            for item in listing:
                if item.name in exclude:
                    continue
                relative = f"{below}/{item.name}" if below else item.name
                try:
                    found.append((relative, item.stat(follow_symlinks=False)))
                except GONE:
                    continue
                if item.is_dir(follow_symlinks=False):
                    todo.append(relative)
    found.sort(key=lambda pair: os.fsencode(pair[0]))
    return found


def manifest(root: str, exclude: frozenset[str], cache: str) -> dict[str, list[Any]]:
    """{relative path: [kind, mode, hash or target]} of a tree, directories included."""
    index = Index(cache, root)
    out: dict[str, list[Any]] = {}
    for relative, info in entries(root, exclude):
        mode = stat.S_IMODE(info.st_mode)
        try:
            if stat.S_ISREG(info.st_mode):
                digest = index.digest(relative, f"{root}/{relative}", info)
                out[relative] = ["file", mode & 0o777, digest]
            elif stat.S_ISLNK(info.st_mode):
                out[relative] = ["link", 0, os.readlink(f"{root}/{relative}")]
            elif stat.S_ISDIR(info.st_mode):
                out[relative] = ["dir", mode & 0o777, ""]
        except GONE:
            continue
    index.save()
    return out


def manifest_hash(rows: dict[str, list[Any]]) -> str:
    """One hash over a manifest; the executable bit counts, other permissions do not."""
    digest = hashlib.sha256()
    for name in sorted(rows):
        kind, mode, content = rows[name]
        digest.update(json.dumps([name, kind, bool(mode & 0o100), content]).encode())
    return digest.hexdigest()


def differing(before: dict[str, list[Any]], now: dict[str, list[Any]]) -> list[str]:
    """Names that two manifests have differently, in what their hashes count."""
    names = sorted(set(before) | set(now))
    return [n for n in names if manifest_hash(_row(before, n)) != manifest_hash(_row(now, n))]


def _row(rows: dict[str, list[Any]], name: str) -> dict[str, list[Any]]:
    return {name: rows[name]} if name in rows else {}


def content(path: str, exclude: frozenset[str], cache: str) -> dict[str, Any] | None:
    """Hash and size of a file or a tree; None where nothing is."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(info.st_mode):
        index = Index(cache, path)
        digest = index.digest("", path, info)
        index.save()
        return {"hash": digest, "files": 1, "bytes": info.st_size}
    rows = manifest(path, exclude, cache)
    files = [name for name, row in rows.items() if row[0] == "file"]
    return {"hash": manifest_hash(rows), "files": len(files)}


def main(argv: list[str]) -> int:
    """The ``hash`` verb."""
    parser = argparse.ArgumentParser(prog="hash")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("paths", nargs="+")
    options = parser.parse_args(argv)
    exclude = frozenset(options.exclude)
    print(json.dumps({path: content(path, exclude, options.cache) for path in options.paths}))
    return 0
