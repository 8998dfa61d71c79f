"""Writers of the lab host killed right before any of their steps: the next one makes it whole."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.killed import killed_at
from umlaan.agent import bring, hostkernel, kernel_build, keys

# What a writer changes on disk goes through one of these.
STEPS = ("rename", "fsync", "unlink", "mkdir", "link", "symlink", "rmdir")


def host_keys(top: Path) -> tuple[Callable[[], object], Callable[[], bool]]:
    spec = {"dir": str(top / "ssh"), "lab": "lab1", "nodes": {"node1": "192.168.1.101"}}
    return lambda: keys.make(spec), lambda: keys.missing(spec) == []


def artifact(top: Path) -> tuple[Callable[[], object], Callable[[], bool]]:
    """One that takes the place of an earlier one."""
    made, target = top / "made", top / "kernels/a"
    for folder, key in ((made, "new"), (target, "old")):
        folder.mkdir(parents=True)
        (folder / "linux").write_text(key)
        (folder / "stamp.json").write_text(json.dumps({"key": key}))
    parcel = top / "parcel.tar.gz"

    def take() -> None:
        # It goes once it is taken; the next run sends it again.
        subprocess.run(["tar", "-C", made, "-czf", parcel, "."], check=True)
        bring.take(str(parcel), str(target))

    def whole() -> bool:
        # At no moment is it anything but the whole old one or the whole new one.
        both = {
            (target / "linux").read_text(),
            json.loads((target / "stamp.json").read_text())["key"],
        }
        assert len(both) == 1
        return both == {"new"}

    return take, whole


def kernel(top: Path) -> tuple[Callable[[], object], Callable[[], bool]]:
    made, target = top / "made", top / "kernels/a"
    made.mkdir()
    for name in ("linux", "config", "modules.tar.gz"):
        (made / name).write_text(name)
    stamp = {"key": "k", "inputs": {}, "extra": ["modules.tar.gz"]}
    (made / "stamp.json").write_text(json.dumps(stamp))

    def whole() -> bool:
        if not (target / "stamp.json").exists():
            return False
        # The stamp is last: where it is, all that it speaks of is there.
        assert [(target / n).read_text() for n in ("linux", "config")] == ["linux", "config"]
        return True

    return lambda: kernel_build.place(str(made), str(target)), whole


def placed_module(top: Path) -> tuple[Callable[[], object], Callable[[], bool]]:
    (top / "new.ko").write_text("new" * 1000)
    target = top / "lib/dvk.ko"
    target.parent.mkdir()
    target.write_text("old" * 1000)

    def whole() -> bool:
        assert target.read_text() in ("old" * 1000, "new" * 1000)
        return target.read_text().startswith("new")

    return lambda: hostkernel.put(str(top / "new.ko"), str(target)), whole


@pytest.mark.parametrize("writer", [host_keys, artifact, kernel, placed_module])
def test_killed_at_every_step_the_next_makes_it_whole(
    tmp_path: Path, writer: Callable[[Path], Any]
) -> None:
    step, killed = 0, True
    while killed:
        step += 1
        top = tmp_path / str(step)
        top.mkdir()
        work, whole = writer(top)
        killed = killed_at(step, work, STEPS)
        assert killed or whole(), step
        # Once more, not killed: it is whole, and nothing is left beside it.
        assert not killed_at(-1, work, STEPS)
        assert whole(), step
        left = [str(path) for path in top.rglob("*") if ".umlaan-new-" in path.name]
        assert left == [], step
    assert step > 2
