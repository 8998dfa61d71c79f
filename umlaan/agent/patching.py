"""Patches and umlaan's own fixes, worked out beside the tree: the result is one more layer.

The files that a patch names are copied into a scratch folder and patched there, so that a patch
that fails leaves no half-patched tree. A patch that applies in reverse is in the tree already.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
from typing import Any

from umlaan.agent.chamber import BuildError, say
from umlaan.agent.index import hash_file
from umlaan.agent.trees import Row, Rows

_OLD = re.compile(r"^--- (\S+)")
_NEW = re.compile(r"^\+\+\+ (\S+)")
_GIT = re.compile(r"^diff --git (a/\S+) (b/\S+)$")
_HUNK = re.compile(r"^Hunk #(\d+) FAILED at (\d+)", re.M)
_FILE = re.compile(r"^(?:checking|patching) file '?([^'\n]+?)'?$", re.M)


def files_of(places: list[str]) -> list[str]:
    """The patch files of a list of files and directories, in order. BuildError names a lack."""
    found: list[str] = []
    for place in places:
        if os.path.isdir(place):
            names = sorted(n for n in os.listdir(place) if n.endswith((".patch", ".diff")))
            if not names:
                raise BuildError(f"kernel.patches: {place}: holds no *.patch and no *.diff")
            found += [f"{place}/{name}" for name in names]
        elif os.path.isfile(place):
            found.append(place)
        else:
            raise BuildError(f"kernel.patches: {place}: no such file or directory")
    return found


def touched(text: str) -> list[tuple[str | None, str | None]]:
    """(old path, new path) of each part of a patch, first component stripped; None: /dev/null."""
    pairs: list[tuple[str | None, str | None]] = []
    # A part of git's without a hunk: a name, a mode or an empty file is all that it changes.
    bare: tuple[str | None, str | None] | None = None
    lines = text.splitlines()
    for first, second in zip(lines, [*lines[1:], ""], strict=True):
        old, new, git = _OLD.match(first), _NEW.match(second), _GIT.match(first)
        if git:
            pairs += [bare] if bare else []
            bare = (_strip(git[1]), _strip(git[2]))
        elif old and new:
            pairs.append((_strip(old[1]), _strip(new[1])))
            bare = None
        elif bare and first.startswith("new file mode"):
            bare = (None, bare[1])
        elif bare and first.startswith("deleted file mode"):
            bare = (bare[0], None)
    return pairs + ([bare] if bare else [])


def parts(data: bytes) -> list[bytes]:
    """A patch cut into its parts, each of one file; what stands between them belongs to one."""
    lines = data.splitlines(keepends=True)
    git = any(line.startswith(b"diff --git ") for line in lines)
    out: list[list[bytes]] = [[]]
    for first, second in zip(lines, [*lines[1:], b""], strict=True):
        plain = first.startswith(b"--- ") and second.startswith(b"+++ ")
        if first.startswith(b"diff --git ") if git else plain:
            out.append([])
        out[-1].append(first)
    return [b"".join(part) for part in out[1:]]


def _strip(path: str) -> str | None:
    if path == "/dev/null":
        return None
    relative = path.partition("/")[2]
    if not relative or ".." in relative.split("/"):
        raise BuildError(f"{path}: not a path as in a/kernel/fork.c")
    return relative


class Scratch:
    """The patched files so far: copies of the tree's rows, never the tree itself."""

    def __init__(self, folder: str, tree: Rows) -> None:
        self.folder = folder
        self.tree = tree
        self.taken: set[str] = set()
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)

    def take(self, name: str) -> bool:
        """Copy a file of the tree into the scratch once; False if neither has it."""
        path = f"{self.folder}/{name}"
        if name not in self.taken:
            self.taken.add(name)
            row = self.tree.get(name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if row and row.kind == "file":
                shutil.copyfile(row.origin, path)
                os.chmod(path, 0o755 if row.executable else 0o644)
        return os.path.isfile(path)

    def patch(self, file: str) -> bool:
        """Apply one patch; False if it is in the tree already. BuildError names file and hunk."""
        with open(file, encoding="utf-8", errors="replace") as text:
            pairs = touched(text.read())
        if not pairs:
            raise BuildError(f"kernel.patches: {file}: no unified diff")
        there = {name: self.take(name) for pair in pairs for name in pair if name}
        if self._has(file, pairs):
            return False
        missing = [old for old, new in pairs if old and old == new and not there[old]]
        if missing:
            raise BuildError(f"patch {file}: {missing[0]} is not in the tree")
        # On a copy: a dry run does not see what an earlier part of the same patch does to a file.
        beside = self._copy()
        if (text_of_failure := _try(beside, file)) is not None:
            shutil.rmtree(beside)
            raise BuildError(f"patch {file}: {failure(text_of_failure)}")
        shutil.rmtree(self.folder)
        os.rename(beside, self.folder)
        return True

    def _copy(self) -> str:
        beside = f"{self.folder}.copy"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(self.folder, beside)
        return beside

    def _has(self, file: str, pairs: list[tuple[str | None, str | None]]) -> bool:
        """Whether a patch is in the tree already: it applies in reverse."""
        names = [new or old for old, new in pairs]
        if len(set(names)) == len(names):
            return _try(self.folder, file, "--dry-run", "--reverse", "--fuzz=0") is None
        beside = self._copy()
        try:
            return _undone(beside, file)
        finally:
            shutil.rmtree(beside)

    def series(self, files: list[str]) -> int:
        """How many patches, from the first on, are in the tree: the last of them is undone first.

        0 where they are not. A series of one is ``patch``'s to find.
        """
        for count in range(len(files), 1, -1):
            beside = self._copy()
            try:
                if all(self._undo(beside, file) for file in reversed(files[:count])):
                    return count
            finally:
                shutil.rmtree(beside)
        return 0

    def _undo(self, folder: str, file: str) -> bool:
        with open(file, encoding="utf-8", errors="replace") as text:
            pairs = touched(text.read())
        names = [new or old for old, new in pairs]
        for name in (name for pair in pairs for name in pair if name):
            if name not in self.taken and self.take(name):
                os.makedirs(os.path.dirname(f"{folder}/{name}"), exist_ok=True)
                shutil.copy(f"{self.folder}/{name}", f"{folder}/{name}")
        if len(set(names)) < len(names):
            return _undone(folder, file)
        return bool(names) and _try(folder, file, "--reverse", "--fuzz=0") is None

    def change(self, fix: dict[str, Any]) -> bool:
        """Make the edits of one of umlaan's fixes; False where the tree needs none of them."""
        done = False
        for edit in fix["edits"]:
            if not self.take(edit["file"]):
                continue
            path = f"{self.folder}/{edit['file']}"
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                before = file.read()
            if "when" in edit and not re.search(edit["when"], before, re.M):
                continue
            if "unless" in edit and re.search(edit["unless"], before, re.M):
                continue
            after = re.sub(edit["find"], edit["put"], before, flags=re.M)
            if after != before:
                with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(after)
                done = True
        return done

    def layer(self) -> Rows:
        """The tree with the patched files over it; what a patch removed is gone."""
        out = dict(self.tree)
        for name in sorted(self.taken):
            path = f"{self.folder}/{name}"
            if not os.path.isfile(path):
                out.pop(name, None)
                continue
            mode = bool(stat.S_IMODE(os.stat(path).st_mode) & 0o100)
            folder = os.path.dirname(name)
            while folder and folder not in out:
                out[folder] = Row("dir", True, "", self.folder, folder)
                folder = os.path.dirname(folder)
            out[name] = Row("file", mode, hash_file(path), self.folder, name)
        return out


def _undone(folder: str, file: str) -> bool:
    """Undo a patch of one file more than once, as of a series of commits: the last part first."""
    with open(file, "rb") as opened:
        cut = parts(opened.read())
    one = f"{folder}.part"
    try:
        for part in reversed(cut):
            with open(one, "wb") as writing:
                writing.write(part)
            if _try(folder, one, "--reverse", "--fuzz=0") is not None:
                return False
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(one)


def _try(folder: str, file: str, *words: str) -> str | None:
    """None if the patch program is content, else what it said."""
    # Not --batch: it turns a patch round that looks reversed, and answers as if it had applied.
    command = ["patch", "-p1", "--force", "--no-backup-if-mismatch", "--reject-file=-", *words]
    done = subprocess.run(
        [*command, "-d", folder, "-i", os.path.abspath(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout.decode(errors="replace") if done.returncode else None


def failure(text: str) -> str:
    """File and hunk of the first failure in what the patch program said."""
    hunk = _HUNK.search(text)
    if hunk:
        files = [m[1] for m in _FILE.finditer(text) if m.start() < hunk.start()]
        return f"{files[-1] if files else 'a file'}: hunk {hunk[1]} fails at line {hunk[2]}"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "the patch program failed without a word"


def apply(spec: dict[str, Any], fixes: list[dict[str, Any]], tree: Rows, folder: str) -> Rows:
    """The tree's rows with all patches in order and then umlaan's fixes; each said."""
    scratch = Scratch(folder, tree)
    files = files_of(spec["patches"])
    while files:
        try:
            done = scratch.patch(files[0])
        except BuildError:
            # A later one of a series may have changed its lines: then all until that are there.
            count = scratch.series(files)
            if not count:
                raise
            for file in files[:count]:
                say(f"patch {file}: already in the tree, with those after it, skipped")
            files = files[count:]
            continue
        say(f"patch {files.pop(0)}: {'applied' if done else 'already in the tree, skipped'}")
    for fix in fixes:
        if scratch.change(fix):
            say(f"umlaan's fix {fix['name']}: {fix['why']}")
    return scratch.layer()
