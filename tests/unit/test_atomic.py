"""Files and folders that take their place whole: two writers, a killed one, and who writes else."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.uml import REPOSITORY
from umlaan.agent import atomic, dvs, files, hostkernel, kernel_build, placed, remove

AGENT = REPOSITORY / "umlaan/agent"
# Renames of what is no new content: logs are rotated, scratch folders have no reader, a root's own
# name comes back; trust travels without this module.
RENAMES = {
    "atomic.py",
    "service.py",
    "holder.py",
    "patching.py",
    "root.py",
    "dvs.py:_unpack",
    "trees.py:_write",
    "trust.py",
}
# A file's end grows, a program's pipe or the kernel's own file is fed, a fresh folder is filled.
WRITES = {
    "atomic.py",
    "files.py",
    "dvstar.py",
    "snapshot.py",
    "patching.py",
    "chroot.py",
    "apt.py",
    "run.py",
    "stop.py",
    "network.py:put",
    "baseimage.py:make",
    # Beneath a root: a file that must not be there yet.
    "beneath.py:create",
    # The other way: into a new file of a build's own folder.
    "beneath.py:copy",
}


def test_threads_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    path, faults = tmp_path / "index", []
    begun = threading.Barrier(8)

    def write(number: int) -> None:
        begun.wait()
        try:
            for _ in range(25):
                files.write_atomic(str(path), bytes([number]) * 4096)
        except OSError as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert faults == []
    assert len(path.read_bytes()) == 4096 and len(set(path.read_bytes())) == 1
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.parametrize("kind", ["new_file", "new_folder"])
def test_what_a_killed_writer_left_goes_with_the_next_and_a_living_ones_stays(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "artifact"
    script = (
        "import sys; from umlaan.agent import atomic\n"
        f"with atomic.{kind}(sys.argv[1]): print('writes', flush=True); sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    words = [sys.executable, "-c", script, str(path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment, **pipes) as other:
        assert other.stdout is not None and other.stdout.readline() == "writes\n"
        (theirs,) = atomic.left(str(path))
        with atomic.new_file(str(path)):
            pass
        assert atomic.left(str(path)) == [theirs]
        other.send_signal(signal.SIGKILL)
    assert atomic.left(str(path)) == [theirs]
    with atomic.new_file(str(path)):
        pass
    assert os.listdir(tmp_path) == ["artifact"]


@pytest.mark.parametrize("stood", ["nothing", "file", "link", "empty", "full"])
def test_a_folder_takes_the_place_of_whatever_stands_there(tmp_path: Path, stood: str) -> None:
    path = tmp_path / "artifact"
    if stood == "file":
        path.write_text("old")
    elif stood == "link":
        path.symlink_to("/nowhere")
    elif stood != "nothing":
        path.mkdir()
    if stood == "full":
        (path / "old").write_text("old")
    with atomic.new_folder(str(path)) as made:
        Path(made, "new").write_text("new")
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["artifact"]


def test_one_that_fails_leaves_what_stood_there(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact/old").write_text("old")
    with (
        pytest.raises(OSError, match="disk full"),
        atomic.new_folder(str(tmp_path / "artifact")) as made,
    ):
        Path(made, "new").write_text("new")
        raise OSError("disk full")
    assert os.listdir(tmp_path) == ["artifact"]
    assert os.listdir(tmp_path / "artifact") == ["old"]


def test_destroy_takes_what_killed_writers_left_of_the_labs_own(tmp_path: Path) -> None:
    """And leaves what only looks like it."""
    for path in ("nodes/node1/root.ext4", "ssh/id_ed25519", "dvs/dvs.tar.gz", "dvs/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Path(atomic.name_beside(str(tmp_path / path))).write_text("half")
    kernel = tmp_path / "kernels/0123456789ab"
    Path(atomic.name_beside(str(kernel))).mkdir(parents=True)
    (tmp_path / "kernels/.0123456789ab.lab1.tar.gz").write_text("half a parcel")
    found = sorted(path.removeprefix(f"{tmp_path}/") for path in remove.ours(str(tmp_path)))
    fronts = ["dvs/.dvs.tar.gz.", "kernels/.0123456789ab.lab1", "kernels/.0123456789ab.umlaan-new"]
    fronts += ["nodes/node1/.root.ext4.", "ssh/.id_ed25519."]
    assert [path[: len(front)] for path, front in zip(found, fronts, strict=True)] == fronts
    (left,) = remove.theirs(str(tmp_path))
    assert Path(left).name.startswith(".notes.txt.")


class Disk:
    """What was on disk when a name changed: files by inode, and all of it after syncfs."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.early: list[str] = []
        self.all = False
        fsync, rename, below = os.fsync, os.rename, atomic.sync_below

        def noted(descriptor: int) -> None:
            self.synced.add(os.fstat(descriptor).st_ino)
            fsync(descriptor)

        def renamed(old: str, new: str, **more: Any) -> None:
            if os.path.isfile(old) and os.stat(old).st_ino not in self.synced:
                self.early.append(str(new))
            rename(old, new, **more)

        def everything(folder: str) -> None:
            below(folder)
            for top, _, names in os.walk(folder):
                self.synced.update(os.stat(os.path.join(top, name)).st_ino for name in names)
            self.early = [name for name in self.early if not name.startswith(folder)]

        patch.setattr(os, "fsync", noted)
        patch.setattr(os, "rename", renamed)
        for module in (atomic, dvs):
            patch.setattr(module, "sync_below", everything)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_kernel_is_on_disk_before_it_is_seen(tmp_path: Path, disk: Disk) -> None:
    made, target = tmp_path / "made", tmp_path / "kernels/a"
    made.mkdir()
    for name in ("linux", "config", "modules.tar.gz"):
        (made / name).write_text(name)
    stamp = {"key": "k", "inputs": {}, "extra": ["modules.tar.gz"]}
    (made / "stamp.json").write_text(json.dumps(stamp))
    kernel_build.place(str(made), str(target))
    assert sorted(os.listdir(target)) == ["config", "linux", "modules.tar.gz", "stamp.json"]
    assert disk.early == []


def test_a_variant_is_on_disk_before_its_stamp(tmp_path: Path, disk: Disk) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("a")
    (source / "b").symlink_to("a")
    spec = {
        "source": str(source),
        "exclude": [],
        "sha256": None,
        "cache": str(tmp_path / "cache"),
        "state": str(tmp_path / "state"),
        "variants": {"ipc": []},
        "buildroot": None,
        "cc": "true",
        "dest": "/usr/src/dvs",
    }
    dvs.build(spec, "ipc")
    dvs.install(spec, "ipc")
    assert sorted(os.listdir(tmp_path / "state")) == ["dvs.tar.gz", "ipc", "ipc.stamp.json"]
    assert disk.early == []


def test_a_module_and_what_stood_in_its_place_are_on_disk(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "mine.ko").write_text("mine")
    placed._copy(str(tmp_path / "mine.ko"), str(tmp_path / "kept.ko"))
    hostkernel.put(str(tmp_path / "kept.ko"), str(tmp_path / "placed.ko"))
    assert disk.early == []


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """(function that it stands in, call) of every call of a module."""

    def walk(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            name = child.name if isinstance(child, ast.FunctionDef) else inside
            if isinstance(child, ast.Call):
                yield name, child
            yield from walk(child, name)

    yield from walk(ast.parse(path.read_text()), "")


def test_nobody_else_renames_or_writes_in_place() -> None:
    """A new writer is written by atomic, or says above why it need not be."""
    found: set[str] = set()
    for path in AGENT.glob("*.py"):
        for inside, call in calls(path):
            words = ast.unparse(call.func)
            modes = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "mode")]
            mode = next((str(m.value) for m in modes if isinstance(m, ast.Constant)), "")
            if words in ("os.rename", "os.replace"):
                allowed = RENAMES
            elif words == "open" and set(mode) & set("wxa+"):
                allowed = WRITES
            else:
                continue
            if not {path.name, f"{path.name}:{inside}"} & allowed:
                found.add(f"{path.name}:{inside}: {ast.unparse(call)}")
    assert found == set()


def test_no_temporary_name_is_one_that_two_threads_share() -> None:
    found = [
        f"{path.name}:{inside}"
        for path in AGENT.glob("*.py")
        for inside, call in calls(path)
        if ast.unparse(call.func) in ("os.open", "open", "os.mkdir", "os.makedirs", "os.symlink")
        if "getpid" in ast.unparse(call)
    ]
    assert found == []
    text = "".join(path.read_text() for path in AGENT.glob("*.py"))
    assert ".new-{os.getpid()}" not in text


def test_a_tree_deeper_than_python_bears_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "uml"
    top.mkdir()
    (tmp_path / "kept").write_text("kept")
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(top)
        # As a guest makes it, in its own folder, step by step.
        for _ in range(3000):
            os.mkdir("a")
            os.chdir("a")
        os.symlink(tmp_path, "out")
    finally:
        os.fchdir(here)
        os.close(here)
    atomic.remove(str(top))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_cannot_be_removed_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="refusing to remove"):
        atomic.remove_tree(f"{tmp_path}/.")
