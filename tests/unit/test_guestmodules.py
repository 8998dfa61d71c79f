"""A kernel's modules in a root: what is packed, what a root says of it, and what changes there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import kmodules
from umlaan.agent.kmodules import PACKED
from umlaan.plan import guestmodules, look
from umlaan.plan.guestmodules import Release

RELEASE = "6.1.7-uml"


class Root:
    """A folder in the place of a node's root, and a kernel's folder with packed modules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.top = folder / "root/lib/modules"
        (folder / "root/lib").mkdir(parents=True)
        self.kernel: dict[str, Any] = {}

    def pack(self, content: str = "one", release: str = RELEASE) -> None:
        """Build's part: three files of modules and an index."""
        stage = self.folder / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        (stage / "kernel/net").mkdir(parents=True)
        (stage / "kernel/net/dummy.ko").write_text(content)
        (stage / "kernel/fs.ko.xz").write_text(content * 3)
        (stage / "modules.dep").write_text("index")
        (stage / "build").symlink_to("/usr/src/out")
        made: dict[str, Any] = {"release": release}
        kmodules.pack(str(stage), str(self.folder / "cache"), made, str(self.folder))
        assert made["modules"] == PACKED and made["extra"] == [PACKED]
        self.kernel = {"release": release, "packed": made["packed"]}

    def look(self) -> dict[str, Release]:
        """What the root's own shell says."""
        return look.parse(["", *self.sh(guestmodules.script()).splitlines()]).modules

    def sh(self, script: str, data: bytes = b"") -> str:
        # The place is the only thing that differs from a real root.
        text = script.replace("/lib/modules", str(self.top)).replace("cd /;", f"cd {self.cwd};")
        text = text.replace("sha256sum; cd /", "sha256sum")
        # No depmod of this machine on folders that are none of its own.
        text = text.replace("command -v depmod", "false")
        text = text.replace(f"lib{self.top}", "lib/modules")
        done = subprocess.run(["sh", "-c", text], cwd=self.cwd, input=data, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @property
    def cwd(self) -> Path:
        return self.folder / "root"

    def change(self) -> guestmodules.Change:
        return guestmodules.change("node1", self.kernel, self.look())

    def converge(self) -> list[str]:
        """One run; its reasons."""
        change = self.change()
        if change.install:
            self.sh(guestmodules.install_script(change), (self.folder / PACKED).read_bytes())
        elif change.reasons:
            self.sh(guestmodules.clean_script(change))
        return change.reasons


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = Root(tmp_path)
    made.pack()
    return made


def test_modules_are_unpacked_once(root: Root) -> None:
    assert root.converge() == [
        f"node1 /lib/modules/{RELEASE}: unpack the kernel's modules, there are none"
    ]
    assert (root.top / RELEASE / "kernel/net/dummy.ko").read_text() == "one"
    assert not (root.top / RELEASE / "build").is_symlink()
    assert root.look() == {
        RELEASE: Release(root.kernel["packed"]["content"], root.kernel["packed"]["sizes"])
    }
    assert root.converge() == []


def test_the_same_modules_give_the_same_parcel(root: Root) -> None:
    first = (root.folder / PACKED).read_bytes()
    root.pack()
    assert (root.folder / PACKED).read_bytes() == first


def test_another_build_of_the_release_replaces_it_and_a_users_module_stays(root: Root) -> None:
    root.converge()
    own = root.top / RELEASE / "extra/dvk.ko"
    own.parent.mkdir()
    own.write_text("mine")
    (root.top / RELEASE / "modules.dep").write_text("written again by depmod")
    assert root.converge() == []
    root.pack("two")
    assert "of another build" in root.converge()[0]
    assert own.read_text() == "mine"
    assert (root.top / RELEASE / "kernel/net/dummy.ko").read_text() == "two"
    assert sorted(os.listdir(root.top)) == [RELEASE]
    assert root.converge() == []


@pytest.mark.parametrize("damage", ["unlink", "cut"])
def test_a_damaged_module_is_brought_back(root: Root, damage: str) -> None:
    root.converge()
    path = root.top / RELEASE / "kernel/net/dummy.ko"
    path.unlink() if damage == "unlink" else path.write_text("o")
    assert "some are missing or cut" in root.converge()[0]
    assert path.read_text() == "one"
    assert root.converge() == []


def test_a_foreign_folder_of_the_release_is_kept_beside(root: Root) -> None:
    theirs = root.top / RELEASE / "kernel/net/dummy.ko"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    assert "not umlaan's and are kept beside" in root.converge()[0]
    kept = [name for name in os.listdir(root.top) if name.startswith(f"{RELEASE}.umlaan-kept-")]
    assert (root.top / kept[0] / "kernel/net/dummy.ko").read_text() == "theirs"
    assert theirs.read_text() == "one"
    assert root.converge() == []


def test_modules_of_a_kernel_that_went_go_but_not_the_users(root: Root) -> None:
    root.converge()
    (root.top / "5.10-theirs").mkdir()
    root.pack("next", "6.1.8-uml")
    reasons = root.converge()
    gone = f"node1 /lib/modules/{RELEASE}: remove umlaan's modules, its kernel is 6.1.8-uml"
    assert gone in reasons and len(reasons) == 2
    assert sorted(os.listdir(root.top)) == ["5.10-theirs", "6.1.8-uml"]
    assert root.converge() == []


def test_a_kernel_without_modules_takes_its_own_away_and_a_users_module_stays(root: Root) -> None:
    root.converge()
    own = root.top / RELEASE / "extra/dvk.ko"
    own.parent.mkdir()
    own.write_text("mine")
    root.kernel["packed"] = None
    assert "its kernel has no modules" in root.converge()[0]
    assert [path for path in root.top.rglob("*") if path.is_file()] == [own]
    assert root.converge() == []


def test_what_a_killed_run_left_goes(root: Root) -> None:
    root.converge()
    left = root.top / f".{RELEASE}.umlaan-new"
    left.mkdir()
    assert "killed run" in root.converge()[0]
    assert not left.exists()
    assert root.converge() == []


def test_a_run_killed_between_the_two_renames_is_finished(root: Root) -> None:
    root.converge()
    root.pack("two")
    os.rename(root.top / RELEASE, root.top / f".{RELEASE}.umlaan-old")
    assert "there are none" in root.converge()[0]
    assert (root.top / RELEASE / "kernel/net/dummy.ko").read_text() == "two"
    assert sorted(os.listdir(root.top)) == [RELEASE]


def test_a_root_without_any_is_left_alone(root: Root) -> None:
    root.kernel["packed"] = None
    assert root.look() == {} and root.converge() == []
