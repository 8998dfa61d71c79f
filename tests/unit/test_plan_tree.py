"""The DVS tree in a node: comparison, listing and replacement, the scripts run for real."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from umlaan.agent import dvstar, index
from umlaan.plan import tree

ODD = ["with blank", "tab\there", "ümlaut-ñ-漢字", "back\\slash", "-dash", "$HOME `id`", "a'b\"c"]


def tarball(folder: Path, files: dict[str, str], executable: tuple[str, ...] = ()) -> bytes:
    """A tarball as the lab host makes it."""
    source = folder / "build" / "dvs"
    for name, text in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in executable else 0o644)
    rows = index.manifest(str(source), frozenset(), str(folder / "cache"))
    dvstar.write_tarball(str(source), rows, str(folder / "dvs.tar.gz"), "dvs")
    return (folder / "dvs.tar.gz").read_bytes()


def manifest(folder: Path) -> tree.Rows:
    return index.manifest(str(folder / "build" / "dvs"), frozenset(), str(folder / "cache"))


def sh(script: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", script], input=data, capture_output=True)


def unpack(dest: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return sh(tree.unpack_script(str(dest)), data)


def listed(dest: Path) -> tuple[tree.Rows, list[str]]:
    lines = sh(tree.listing_script(str(dest))).stdout.decode().split("\n")
    return tree.parse_listing(base64.b64decode(lines[0])), [x for x in lines[1:] if x]


def kinds(dest: Path) -> dict[str, str]:
    return {
        str(p.relative_to(dest)): p.read_text() if p.is_file() else "dir"
        for p in sorted(dest.rglob("*"))
        if p.name != tree.LIST
    }


ROWS: tree.Rows = {"lib": ["dir", 0o755, ""], "lib/x": ["file", 0o755, "abc"]}
FOUND: tree.Rows = {"lib": ["dir", False, ""], "lib/x": ["file", True, "abc"]}


def test_a_tree_as_built_is_left_alone_whatever_else_is_in_it() -> None:
    more = {**FOUND, "received.txt": ["file", False, "mine"]}
    assert tree.reason("node1", "/usr/src/dvs", ROWS, more) is None


@pytest.mark.parametrize(
    "row", [["file", True, "other"], ["file", False, "abc"], ["link", False, "abc"], None]
)
def test_content_mode_kind_and_absence_are_drift(row: list[object] | None) -> None:
    found = {k: v for k, v in {**FOUND, "lib/x": row}.items() if v is not None}
    assert tree.differing(ROWS, found) == ["lib/x"]
    said = tree.reason("node1", "/usr/src/dvs", ROWS, found)
    assert said == "node1 /usr/src/dvs: unpack dvs.tar.gz, lib/x differ from what was built"


def test_reasons_are_short_and_tell_a_missing_tree() -> None:
    many: tree.Rows = {f"f{n}": ["file", 0o644, "x"] for n in range(5)}
    said = tree.reason("node1", "/d", many, {"f0": ["file", False, "x"]})
    assert said == "node1 /d: unpack dvs.tar.gz, f1, f2, f3 and 1 more differ from what was built"
    assert tree.reason("node1", "/d", many, {}) == (
        "node1 /d: unpack dvs.tar.gz, the tree is missing"
    )


def test_space_is_told_with_figures() -> None:
    def lack(need: tuple[int, int], free: tuple[int, int]) -> str | None:
        return tree.lack_of_space("node1", "/dev/sdb6", "/d", tree.unpacked(*need), free)

    assert lack((1000, 10), (1 << 30, 1000)) is None
    assert lack((77_000_000, 2000), (50_000_000, 9)) == (
        "node1: /d needs 86.2 MB and 2016 inodes free in /dev/sdb6; it has 50.0 MB and 9 inodes; "
        "nothing was changed there"
    )
    assert lack((10, 100), (1 << 30, 50)) is not None


def test_listing_reads_odd_names_as_the_lab_host_does(tmp_path: Path) -> None:
    data = tarball(tmp_path, {**{f"{n}/{n}": n for n in ODD}, "new\nline": "x"}, ("-dash/-dash",))
    dest = tmp_path / "root" / "dvs"
    assert unpack(dest, data).returncode == 0
    found, left = listed(dest)
    assert tree.differing(manifest(tmp_path), found) == []
    assert left == []
    (dest / "ümlaut-ñ-漢字" / "ümlaut-ñ-漢字").write_text("edited")
    (dest / "back\\slash" / "back\\slash").unlink()
    found, _ = listed(dest)
    assert tree.differing(manifest(tmp_path), found) == [
        "back\\slash/back\\slash",
        "ümlaut-ñ-漢字/ümlaut-ñ-漢字",
    ]


def test_listing_reads_bytes_that_are_no_text_and_links(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "dvs")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/dvs/\xff\xfe")).write_text("x")
    (tmp_path / "dvs" / "link").symlink_to("with blank\tand tab")
    found, _ = listed(tmp_path / "dvs")
    assert found[os.fsdecode(b"\xff\xfe")] == [
        "file",
        False,
        hashlib.sha256(b"x").hexdigest(),
    ]
    assert found["link"] == ["link", False, "with blank\tand tab"]


def test_listing_of_nothing(tmp_path: Path) -> None:
    assert listed(tmp_path / "dvs") == ({}, [])
    assert tree.parse_listing(b"") == {}


def test_only_files_of_the_tree_are_read(tmp_path: Path) -> None:
    dest = tmp_path / "dvs"
    assert unpack(dest, tarball(tmp_path, {"a": "1"})).returncode == 0
    (dest / "large").write_text("received")
    found, _ = listed(dest)
    assert found["large"] == ["file", False, ""]
    assert found["a"][2]
    (dest / tree.LIST).write_text("damaged")
    found, _ = listed(dest)
    assert tree.differing(manifest(tmp_path), found) == ["a"]


def test_the_users_files_survive_and_old_files_of_ours_do_not(tmp_path: Path) -> None:
    dest = tmp_path / "root" / "src" / "dvs"
    old = tarball(tmp_path / "1", {"a": "1", "gone/b": "1", "same": "1"})
    new = tarball(tmp_path / "2", {"a": "2", "same": "1", "fresh/c": "2"})
    assert unpack(dest, old).returncode == 0
    (dest / "gone" / "mine.log").write_text("mine")
    (dest / "with blank\nand line").write_text("mine")
    (dest / "empty folder").mkdir()
    (dest / "a").write_text("edited")
    inode = (dest / "gone" / "mine.log").stat().st_ino
    assert unpack(dest, new).returncode == 0
    assert kinds(dest) == {
        "a": "2",
        "same": "1",
        "fresh": "dir",
        "fresh/c": "2",
        "gone": "dir",
        "gone/mine.log": "mine",
        "with blank\nand line": "mine",
        "empty folder": "dir",
    }
    # A program that still writes to its log goes on writing to the file that is seen.
    assert (dest / "gone" / "mine.log").stat().st_ino == inode
    assert [p.name for p in dest.parent.iterdir()] == ["dvs"]


def test_a_tree_put_there_by_hand_is_taken_over_with_all_its_files(tmp_path: Path) -> None:
    dest = tmp_path / "dvs"
    dest.mkdir()
    (dest / "a").write_text("by hand")
    (dest / "b").write_text("mine")
    assert unpack(dest, tarball(tmp_path / "t", {"a": "1"})).returncode == 0
    assert kinds(dest) == {"a": "1", "b": "mine"}


def test_what_cannot_be_carried_over_stays_under_a_name_that_is_told(tmp_path: Path) -> None:
    dest = tmp_path / "dvs"
    dest.mkdir()
    (dest / "x").write_text("mine, where the new tree has a folder")
    (dest / "y").mkdir()
    (dest / "y" / "mine").write_text("mine, where the new tree has a file")
    (dest / "z").write_text("mine")
    done = unpack(dest, tarball(tmp_path / "t", {"x/1": "1", "y": "2"}))
    assert done.returncode == 0, done.stderr
    assert kinds(dest) == {"x": "dir", "x/1": "1", "y": "2", "z": "mine"}
    kept = next(p for p in tmp_path.iterdir() if "umlaan-kept" in p.name)
    assert str(kept) in done.stdout.decode()
    assert (kept / "x").read_text().startswith("mine")
    assert (kept / "y" / "mine").read_text().startswith("mine")


def test_something_else_in_its_place_is_kept(tmp_path: Path) -> None:
    dest = tmp_path / "dvs"
    dest.write_text("a file")
    assert unpack(dest, tarball(tmp_path / "t", {"a": "1"})).returncode == 0
    assert kinds(dest) == {"a": "1"}
    assert next(tmp_path.glob("dvs.umlaan-kept-*")).read_text() == "a file"


def test_a_link_to_a_tree_elsewhere_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    (tmp_path / "dvs").symlink_to("elsewhere")
    assert unpack(tmp_path / "dvs", tarball(tmp_path / "t", {"a": "1"})).returncode == 0
    assert (tmp_path / "dvs").is_symlink()
    assert kinds(tmp_path / "elsewhere") == {"a": "1", "mine": "mine"}


def test_half_a_tarball_changes_nothing(tmp_path: Path) -> None:
    dest = tmp_path / "dvs"
    data = tarball(tmp_path / "t", {f"f{n}": os.urandom(999).hex() for n in range(20)})
    assert unpack(dest, tarball(tmp_path / "o", {"a": "1"})).returncode == 0
    for part in (data[: len(data) // 2], b"", b"no tarball"):
        assert unpack(dest, part).returncode != 0
        assert kinds(dest) == {"a": "1"}
        assert listed(dest)[1] == []


def killed_at(dest: Path, data: bytes, line: str) -> None:
    """Run the script and kill it, by a signal that no trap catches, in front of that line."""
    script = tree.unpack_script(str(dest))
    assert script.count(line) == 1
    done = sh(script.replace(line, f"kill -KILL $$; {line}"), data)
    assert done.returncode == -9


@pytest.mark.parametrize(
    "line", ['cd "$top"\n', "    entries | sort -z | comm", 'mv "$top" "$d"', "case $old in"]
)
def test_killed_at_any_step_the_next_run_ends_with_the_whole_tree(
    tmp_path: Path, line: str
) -> None:
    dest = tmp_path / "root" / "dvs"
    data = tarball(tmp_path / "new", {"a": "2", "b": "2"})
    assert unpack(dest, tarball(tmp_path / "old", {"a": "1", "c": "1"})).returncode == 0
    (dest / "mine").write_text("mine")
    killed_at(dest, data, line)
    found, left = listed(dest)
    said = tree.reason(
        "node1", str(dest), manifest(tmp_path / "new"), found, tuple(x[5:] for x in left)
    )
    assert said is not None and left
    if "left by a killed unpack" in said:
        assert sh(tree.clean_script(str(dest))).returncode == 0
    else:
        assert unpack(dest, data).returncode == 0
    assert kinds(dest) == {"a": "2", "b": "2", "mine": "mine"}
    assert [p.name for p in dest.parent.iterdir()] == ["dvs"]
    found, left = listed(dest)
    assert (tree.differing(manifest(tmp_path / "new"), found), left) == ([], [])


def test_a_full_disk_leaves_the_old_tree_and_nothing_beside_it(tmp_path: Path) -> None:
    """On a file system of 1 MB, mounted in a namespace of its own."""
    data = tarball(tmp_path / "new", {"big": os.urandom(900_000).hex()})
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").write_bytes(data)
    script = (
        f"mount -t tmpfs -o size=1m disk {tmp_path}/disk; mkdir {tmp_path}/disk/dvs; "
        f"echo 1 >{tmp_path}/disk/dvs/a; "
        f"( {tree.unpack_script(f'{tmp_path}/disk/dvs')} ) <{tmp_path}/data; echo code $?; "
        f"find {tmp_path}/disk -mindepth 1"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n")[:-1] == [
        "code 1",
        f"{tmp_path}/disk/dvs",
        f"{tmp_path}/disk/dvs/a",
    ]
    assert "umlaan: not unpacked; free now:" in done.stderr


def test_the_tarball_of_the_lab_host_has_one_top(tmp_path: Path) -> None:
    data = tarball(tmp_path, {"a": "1"})
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {name.split("/")[0] for name in archive.getnames()} == {"dvs"}
