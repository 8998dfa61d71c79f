"""What the tests' own trees are removed with: it never goes on into the machine's own folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import debian


def test_a_tree_with_a_mount_below_it_is_not_removed(tmp_path: Path) -> None:
    lent = tmp_path / "lent"
    (tmp_path / "tree/dev/shm").mkdir(parents=True)
    lent.mkdir()
    (lent / "of-another").write_text("kept")
    script = f'mount --bind {lent} {tmp_path}/tree/dev/shm && exec "$@"'
    code = "import sys, pathlib; from tests import debian; debian.remove(pathlib.Path(sys.argv[1]))"
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    repository = Path(debian.__file__).parents[1]
    done = subprocess.run(
        [*words, sys.executable, "-c", code, str(tmp_path / "tree")],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode and "mounted there" in done.stderr, done.stderr
    assert (lent / "of-another").read_text() == "kept"
    debian.remove(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_the_cache_makes_once_what_depends_on_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "CACHE", tmp_path)
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("whole")

    one = debian.cached("thing", ("a",), make)
    assert debian.cached("thing", ("a",), make) == one and len(made) == 1
    assert debian.cached("thing", ("b",), make) != one and len(made) == 2
    assert one.read_text() == "whole"

    def fails(path: Path) -> None:
        path.write_text("half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        debian.cached("thing", ("c",), fails)
    assert debian.cached("thing", ("c",), make).read_text() == "whole"
