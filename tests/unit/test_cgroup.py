"""A node's bounds in stand-ins for the kernel's cgroup trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import cgroup

ORDER: dict[str, Any] = {"name": "node1", "dir": "/srv/lab/nodes/node1", "mem": 256 << 20}
MEMORY = str((256 << 20) * 3 // 2 + (256 << 20))


def own(folder: Path) -> Path:
    (found,) = [path for path in folder.iterdir() if path.name.startswith("umlaan-node1-")]
    return found


def tree(folder: Path, *files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).touch()


def made(folder: Path, *files: str) -> None:
    """What the kernel puts into a new group."""
    for path in cgroup.folders(ORDER):
        if Path(path).parent == folder:
            tree(Path(path), *files, "cgroup.procs")


def test_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path))
    for kind, file in (("memory", "memory.limit_in_bytes"), ("pids", "pids.max")):
        tree(tmp_path / kind, "cgroup.procs")
        made(tmp_path / kind, file)
    files = cgroup.make(ORDER)
    assert files == [f"{own(tmp_path / kind)}/cgroup.procs" for kind in ("memory", "pids")]
    assert (own(tmp_path / "memory") / "memory.limit_in_bytes").read_text() == MEMORY
    assert (own(tmp_path / "pids") / "pids.max").read_text() == "4096"
    cgroup.join(files)
    assert [Path(file).read_text() for file in files] == ["0", "0"]


def test_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path))
    tree(tmp_path, "cgroup.controllers", "cgroup.subtree_control", "cgroup.procs")
    made(tmp_path, "memory.max", "pids.max")
    (file,) = cgroup.make(ORDER)
    assert file == f"{own(tmp_path)}/cgroup.procs"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (own(tmp_path) / "memory.max").read_text() == MEMORY
    assert (own(tmp_path) / "pids.max").read_text() == "4096"


@pytest.mark.parametrize("files", [(), ("cgroup.controllers",)])
def test_where_there_is_none_to_use_a_node_runs_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
) -> None:
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path))
    tree(tmp_path, *files)
    assert cgroup.make(ORDER) == []
    cgroup.leave(ORDER)


def test_under_systemd_the_scope_has_the_same_bounds() -> None:
    assert cgroup.properties(ORDER) == [
        f"--property=MemoryMax={MEMORY}",
        "--property=TasksMax=4096",
    ]
