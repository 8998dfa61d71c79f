"""Where a fault in the data stands, as its user wrote it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from umlaan.inventory import place_of


def host(**data: Any) -> Any:
    inventory = SimpleNamespace(
        get_override_data=lambda: data.get("override", {}),
        get_host_data=lambda name: data.get("own", {}),
    )
    return SimpleNamespace(name="@local", groups=["node0"], inventory=inventory)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and an example inside it whose group_data lies over the project's."""
    for folder, text in (("", "lab = 1\ndvs = 2\n"), ("mine/", "\n\ndvs = 3\n")):
        (tmp_path / f"{folder}group_data").mkdir(parents=True)
        (tmp_path / f"{folder}group_data/all.py").write_text(text)
        (tmp_path / f"{folder}inventory.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_that_was_given_with_the_inventory_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["pyinfra", "-y", "mine/inventory.py", "deploy.py"])
    assert place_of(host(), "dvs") == "mine/group_data/all.py:3"
    assert place_of(host(), "lab") == "group_data/all.py:1"
    monkeypatch.setattr(sys, "argv", ["pyinfra", "-y", "inventory.py", "deploy.py"])
    assert place_of(host(), "dvs") == "group_data/all.py:2"


def test_a_groups_own_file_comes_before_that_of_all(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pyinfra", "mine/inventory.py"])
    (project / "group_data/node0.py").write_text("dvs = 4\n")
    assert place_of(host(), "dvs") == "group_data/node0.py:1"


def test_what_was_given_by_hand_or_to_a_host_is_named_so() -> None:
    assert place_of(host(override={"dvs.source": 1}), "dvs") == "--data"
    assert place_of(host(own={"dvs": 1}), "dvs") == "inventory.py, host @local"
    assert place_of(host(), "nothing") == "data of @local"
