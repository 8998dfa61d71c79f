"""docs/security.md names a test for each boundary; each of them is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs/security.md").read_text()
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!---|what )", line)]


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((REPO / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_party_of_the_issue_has_its_section() -> None:
    assert len(re.findall(r"^## ", PAGE, re.MULTILINE)) >= 8
    assert len(ROWS) >= 30


@pytest.mark.parametrize("row", ROWS, ids=[str(number) for number in range(len(ROWS))])
def test_each_row_names_tests_that_there_are(row: str) -> None:
    cell = row.rstrip().rstrip("|").split("|")[-1]
    found = TEST.findall(cell)
    assert found, f"no test in: {row}"
    for path, name in found:
        assert name in names_in(path), f"{path} has no {name}"
