"""Tarballs and trees of anybody's: cut off, of another kind, with rights or with ways out."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import bring, dvs, source, unpack
from umlaan.agent.chamber import BuildError
from umlaan.agent.spec import encode
from umlaan.facts.base import PACKAGE

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="makes devices and changes owners")


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.uid = info.gid = 1234
    data = b"x" if kind == tarfile.REGTYPE else b""
    info.size = len(data)
    return info, data


def tarball(path: Path, *members: Any) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return str(path)


TREE = (member("dvs", tarfile.DIRTYPE, mode=0o755), member("dvs/Makefile"))


def test_what_is_in_it_stands_there_without_owner_and_rights(tmp_path: Path) -> None:
    made = tarball(
        tmp_path / "a.tar.gz",
        member("dvs", tarfile.DIRTYPE, mode=0o2777),
        member("dvs/suid", mode=0o6755),
        member("dvs/run", mode=0o755),
        member("dvs/open", mode=0o666),
        member("dvs/link", tarfile.SYMTYPE, "run"),
        member("dvs/hard", tarfile.LNKTYPE, "dvs/run"),
    )
    target = tmp_path / "out"
    unpack.unpack(made, str(target))
    modes = {p.name: stat.S_IMODE(p.lstat().st_mode) for p in target.rglob("*")}
    assert modes["suid"] == modes["run"] == modes["dvs"] == 0o755
    assert modes["open"] == 0o644
    assert {p.lstat().st_uid for p in target.rglob("*")} == {os.geteuid()}
    assert (target / "dvs/link").readlink() == Path("run")
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


BAD = {
    "link out": ((*TREE, member("dvs/l", tarfile.SYMTYPE, "../../x")), "is a link to '../../x'"),
    "absolute link": ((*TREE, member("dvs/l", tarfile.SYMTYPE, "/etc")), "is a link to '/etc'"),
    "through a link": (
        (
            *TREE,
            member("dvs/a", tarfile.DIRTYPE, mode=0o755),
            member("dvs/a/d", tarfile.SYMTYPE, "../.."),
            member("dvs/a/e", tarfile.SYMTYPE, "d/.."),
        ),
        "outside the archive",
    ),
    "written through a link": (
        (*TREE, member("dvs/l", tarfile.SYMTYPE, "/"), member("dvs/l/escaped")),
        "a.tar.gz: ",
    ),
    "hard link out": ((*TREE, member("dvs/h", tarfile.LNKTYPE, "/etc/passwd")), "a.tar.gz: "),
    "upwards": ((*TREE, member("../escaped")), "a.tar.gz: "),
    "FIFO": ((*TREE, member("dvs/f", tarfile.FIFOTYPE)), "'dvs/f' is neither a file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_leaves_its_folder_or_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    members, message = BAD[name]
    made = tarball(tmp_path / "a.tar.gz", *members)
    with pytest.raises(BuildError) as caught:
        unpack.unpack(made, str(tmp_path / "below/out"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar.gz", "below"]


def test_an_absolute_member_stays_inside(tmp_path: Path) -> None:
    made = tarball(tmp_path / "a.tar.gz", member(f"{tmp_path}/escaped"))
    unpack.unpack(made, str(tmp_path / "out"))
    assert not (tmp_path / "escaped").exists()


@ROOT
def test_a_device_is_refused(tmp_path: Path) -> None:
    info, data = member("dvs/sda", tarfile.BLKTYPE, mode=0o666)
    info.devmajor, info.devminor = 8, 0
    made = tarball(tmp_path / "a.tar.gz", *TREE, (info, data))
    with pytest.raises(BuildError, match="'dvs/sda' is neither a file"):
        unpack.unpack(made, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_file_that_grows_without_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "FILE_MAX", 1 << 20)
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(1 << 30)
    words = ["tar", "-C", str(tmp_path), "-Scf", str(tmp_path / "a.tar"), "hole"]
    subprocess.run(words, check=True)
    assert (tmp_path / "a.tar").stat().st_size < 100_000
    with pytest.raises(BuildError, match=r"a\.tar: "):
        unpack.unpack(str(tmp_path / "a.tar"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_one_that_would_fill_the_disk_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # tar waits for the other end of the FIFO, as it would while a large file is written.
    monkeypatch.setattr(unpack, "kind_of", lambda path: "file")
    monkeypatch.setattr(unpack, "_free", lambda folder: 1 << 20)
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(BuildError, match="unpacked it does not fit: 1 MiB are left"):
        unpack.unpack(str(tmp_path / "a.tar"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def other(tmp_path: Path, kind: str) -> str:
    path = tmp_path / f"source.{kind}"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "cut":
        whole = Path(tarball(tmp_path / "whole.tar.gz", *TREE)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        path.write_text("no archive")
    elif kind == "device":
        path = Path("/dev/zero")
    return str(path)


def dvs_spec(tmp_path: Path, source: str) -> dict[str, Any]:
    variant = [{"dir": ".", "targets": [], "variables": {}}]
    return {
        "source": source,
        "sha256": None,
        "exclude": [],
        "cache": str(tmp_path / "cache"),
        "state": str(tmp_path / "state/dvs"),
        "dest": "/usr/src/dvs",
        "variants": {"ioctl": variant},
        "buildroot": None,
        "cc": "gcc",
        "leave": {},
    }


def agent(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "umlaan.agent", *words],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fifo", "no such directory or tarball"),
        ("device", "no such directory or tarball"),
        ("none", "no such directory or tarball"),
        ("cut", "source.cut: gzip: stdin: unexpected end of file"),
        ("text", "source.text: tar: This does not look like a tar archive"),
    ],
)
def test_a_dvs_source_that_is_no_whole_tarball_is_one_message(
    tmp_path: Path, kind: str, message: str
) -> None:
    word = encode(dvs_spec(tmp_path, other(tmp_path, kind)))
    done = agent("dvs", "build", word, "ioctl")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dvs.source: ")
    assert message in last


@pytest.mark.parametrize(("kind", "named"), [("fifo", "FIFO"), ("device", "device")])
def test_what_a_dvs_source_is_instead_is_said(tmp_path: Path, kind: str, named: str) -> None:
    found = dvs.state(dvs_spec(tmp_path, other(tmp_path, kind)))
    assert (found["source"], found["kind"]) == (None, named)


def test_a_tree_with_a_socket_in_it_is_copied_without_and_without_rights(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Makefile").write_text("all:\n\ttrue\n")
    (tree / "suid").write_text("")
    (tree / "suid").chmod(0o4777)
    os.mkfifo(tree / "fifo")
    done = agent("dvs", "build", encode(dvs_spec(tmp_path, str(tree))), "ioctl")
    assert done.returncode == 0, done.stdout + done.stderr
    built = tmp_path / "state/dvs/ioctl"
    assert sorted(p.name for p in built.iterdir()) == ["Makefile", "suid"]
    assert stat.S_IMODE((built / "suid").stat().st_mode) == 0o755


def test_a_kernel_s_tarball_of_another_kind_is_said(tmp_path: Path) -> None:
    for kind, what in (("fifo", "is a FIFO, not a tarball"), ("none", "no such file")):
        path = other(tmp_path, kind)
        found = source.identify({"tarball": path}, str(tmp_path / "cache"))
        assert found["problem"] == f"kernel.source: {path}: {what}"


@pytest.mark.parametrize("kind", ["cut", "text"])
def test_a_kernel_s_tarball_that_is_not_whole_is_one_message(tmp_path: Path, kind: str) -> None:
    path = other(tmp_path, kind)
    with pytest.raises(BuildError, match=rf"source\.{kind}: "):
        source.unpack({"hash": "0" * 64, "file": path}, str(tmp_path / "cache"))
    assert not any((tmp_path / "cache/source").iterdir())


def test_an_artifact_of_a_builder_has_no_rights_either(tmp_path: Path) -> None:
    stamp, _ = member("./stamp.json")
    stamp.size = 2
    made = tarball(tmp_path / "a.tar.gz", (stamp, b"{}"), member("./linux", mode=0o6777))
    bring.take(made, str(tmp_path / "kernel"))
    assert stat.S_IMODE((tmp_path / "kernel/linux").stat().st_mode) == 0o755
