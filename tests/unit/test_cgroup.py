"""A node's bounds in stand-ins for the kernel's cgroup trees."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import cgroup, node, proc

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


def test_a_process_that_hides_is_found_by_its_group(order: dict[str, Any], tmp_path: Path) -> None:
    """A hostile guest's may change its name and session and close what it has of umlaan's."""
    nobody = pwd.getpwnam("nobody").pw_uid
    (Path(order["dir"]) / "uml").mkdir()
    os.chown(Path(order["dir"]) / "uml", nobody, -1)
    hidden = subprocess.Popen(
        ["sleep", "300"], start_new_session=True, cwd="/", user=nobody, extra_groups=[]
    )
    try:
        tree(tmp_path / "group")
        record = {"boot_id": proc.boot_id(), "groups": [str(tmp_path / "group")]}
        Path(order["dir"], "launch.json").write_text(json.dumps(record))
        # The test's own pid is root's: a scope holds umlaan's own processes, too.
        procs = tmp_path / "group" / "cgroup.procs"
        procs.write_text(f"{hidden.pid}\n{os.getpid()}\n")
        assert [one.pid for one in node.members(order)] == [hidden.pid]
        procs.unlink()
        assert node.members(order) == []
    finally:
        hidden.kill()
        hidden.wait()


def test_the_groups_of_a_process_are_a_node_s_own_alone() -> None:
    assert all("/umlaan-" in group for group in cgroup.of(os.getpid()))
    assert cgroup.of(0) == []


def test_under_systemd_the_scope_has_the_same_bounds() -> None:
    assert cgroup.properties(ORDER) == [
        f"--property=MemoryMax={MEMORY}",
        "--property=TasksMax=4096",
    ]
