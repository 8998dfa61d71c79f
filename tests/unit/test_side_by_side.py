"""The tests' own runner: nothing is left out, nothing that failed passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.side_by_side import REPO, counts, grouped


def test_each_file_is_in_one_group_and_the_longest_begin_first() -> None:
    seconds = {"a": 1.0, "b": 5.0, "c": 3.0, "d": 2.0}
    groups = grouped(["a", "b", "c", "d"], seconds, 2)
    assert [group.files for group in groups] == [["b", "a"], ["c", "d"]]
    assert [group.files for group in grouped(["a", "b", "new"], seconds, None)] == [
        ["new"],
        ["b"],
        ["a"],
    ]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("12 passed in 1.2s", {"passed": 12}),
        ("= 1 failed, 2 passed, 3 errors in 70.1s (0:01:10) =", {"failed": 4, "passed": 2}),
        ("2 passed, 1 skipped in 0.1s", {"passed": 2, "skipped": 1}),
        ("Killed", {}),
    ],
)
def test_what_pytest_counted(line: str, found: dict[str, int]) -> None:
    assert counts(f"tests/x.py::test_y 3 passed of all\n{line}\n") == found


@pytest.mark.parametrize(
    ("text", "code", "last"),
    [
        ("def test_one(): pass\n", 0, "1 passed, 0 failed"),
        ("def test_one(): assert False\n", 1, "0 passed, 1 failed"),
        ("import os\ndef test_one(): os.kill(os.getpid(), 9)\n", 1, "0 passed, 0 failed"),
        ("import nothing_of_that_name\n", 1, "0 passed, 1 failed"),
        ("", 1, "0 passed, 0 failed"),
    ],
)
def test_what_fails_is_told(tmp_path: Path, text: str, code: int, last: str) -> None:
    path = tmp_path / "test_made.py"
    path.write_text(text)
    words = [sys.executable, "-m", "tests.side_by_side", str(path)]
    done = subprocess.run(words, cwd=REPO, text=True, capture_output=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last), done.stdout
