"""Snapshots of a stopped node on a real ext4 image, and how a running guest is held still."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.killed import killed_at
from umlaan.agent import quiesce, root, snapshot
from umlaan.agent.files import locked
from umlaan.model.lab import HostData, build_lab
from umlaan.plan import snapshot as plan

REPO = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mke2fs") is None, reason="needs root and e2fsprogs"
)


@pytest.fixture
def order(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "nodes/node1"
    folder.mkdir(parents=True)
    root = folder / "root.ext4"
    with root.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(root)], check=True)
    Path(f"{root}.json").write_text('{"key": "base"}')
    return {
        "name": "node1",
        "dir": str(folder),
        "umid": "node1",
        "root": str(root),
        "store": str(tmp_path / "snapshots/node1"),
        "ssh": ["false"],
        "snapshot": "one",
    }


def put(order: dict[str, Any], text: str) -> None:
    """A file's content in the root, without a mount."""
    source = Path(order["dir"], "source")
    source.write_text(text)
    for words in ("rm /mark", f"write {source} /mark"):
        subprocess.run(["debugfs", "-w", "-R", words, order["root"]], capture_output=True)


def held(path: str) -> str:
    words = ["debugfs", "-R", "cat /mark", path]
    return subprocess.run(words, capture_output=True, text=True).stdout


def verb(name: str, order: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-S", "-m", "umlaan.agent", "snapshot", name]
    return subprocess.run(
        [*words, json.dumps({**order, **more})], cwd=REPO, capture_output=True, text=True
    )


@needs_root
def test_taken_changed_and_brought_back(order: dict[str, Any]) -> None:
    put(order, "before")
    done = verb("take", order)
    assert done.returncode == 0 and "node1: snapshot one (" in done.stdout, done.stderr
    put(order, "after")
    Path(f"{order['root']}.json").write_text('{"key": "other"}')
    done = verb("restore", order)
    assert done.returncode == 0, done.stderr
    assert held(order["root"]) == "before"
    assert json.loads(Path(f"{order['root']}.json").read_text()) == {"key": "base"}
    rows = snapshot.listing(order)
    assert [row["name"] for row in rows][0] == "one"
    (kept,) = [row for row in rows if row["how"] == "kept"]
    assert kept["name"].startswith("before-restore-")
    assert held(snapshot.image(order, kept["name"])) == "after"
    # What was kept aside comes back in the same way.
    assert verb("restore", order, snapshot=kept["name"]).returncode == 0
    assert held(order["root"]) == "after"


@needs_root
def test_holes_stay_holes(order: dict[str, Any]) -> None:
    assert verb("take", order).returncode == 0
    copy = os.stat(snapshot.image(order, "one"))
    assert copy.st_size == 16 << 20
    assert copy.st_blocks * 512 <= os.stat(order["root"]).st_blocks * 512 + 65536
    assert Path(snapshot.image(order, "one")).read_bytes() == Path(order["root"]).read_bytes()


@needs_root
@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("take", {}, "it has a snapshot one already"),
        ("restore", {"snapshot": "two"}, "it has no snapshot two; it has: one"),
        ("remove", {"snapshot": "two"}, "it has no snapshot two; it has: one"),
        ("take", {"snapshot": "x", "root": "/nowhere/root"}, "it has no root at /nowhere/root yet"),
    ],
)
def test_refusals_change_nothing(
    order: dict[str, Any], name: str, more: dict[str, Any], said: str
) -> None:
    assert verb("take", order).returncode == 0
    before = sorted(os.listdir(order["store"]))
    done = verb(name, order, **more)
    assert done.returncode == 1
    assert done.stderr.startswith(f"umlaan: node1: {said}"), done.stderr
    assert sorted(os.listdir(order["store"])) == before


@needs_root
def test_what_a_killed_copy_left_goes_with_the_next(order: dict[str, Any]) -> None:
    store = Path(order["store"])
    store.mkdir(parents=True)
    (store / "before-restore-20260101-000000.ext4.new").write_text("as large as a root")
    (store / "mine.ext4").write_text("a user's")
    assert verb("take", order).returncode == 0
    assert sorted(p.name for p in store.iterdir()) == ["mine.ext4", "one.ext4", "one.json"]


@needs_root
def test_removed_with_its_folder(order: dict[str, Any]) -> None:
    verb("take", order)
    assert verb("remove", order).returncode == 0
    assert not Path(order["store"]).exists()
    assert Path(order["root"]).exists()


@needs_root
def test_a_root_in_use_is_refused(order: dict[str, Any]) -> None:
    from umlaan.agent import rootlock

    lock = rootlock.take(order["root"], "someone")
    try:
        with pytest.raises(rootlock.RootBusy, match="someone"), _impatient(order):
            pass
    finally:
        os.close(lock)


def _impatient(order: dict[str, Any]) -> Any:
    from contextlib import contextmanager

    from umlaan.agent import rootlock

    @contextmanager
    def stopped() -> Any:
        taken = rootlock.take
        rootlock.take = lambda root, holder, wait=0.0: taken(root, holder, 0.0)  # type: ignore[assignment]
        try:
            with snapshot.at_rest(order) as how:
                yield how
        finally:
            rootlock.take = taken

    return stopped()


@needs_root
def test_a_full_disk_leaves_nothing(order: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise OSError(95, "no reflinks here")

    real = os.statvfs(order["dir"])

    class Full:
        f_bavail, f_frsize = 10, real.f_frsize

    monkeypatch.setattr(snapshot.fcntl, "ioctl", never)
    monkeypatch.setattr(snapshot.os, "statvfs", lambda _: Full())
    with pytest.raises(snapshot.Refused, match=r"MB free, the copy needs"):
        snapshot.take(order)
    assert os.listdir(order["store"]) == []


@needs_root
def test_the_mode_that_a_guest_gave_its_root_is_no_snapshot_s(order: dict[str, Any]) -> None:
    os.chown(order["root"], 65534, 65534)
    os.chmod(order["root"], 0o4777)
    assert verb("take", order).returncode == 0
    assert verb("restore", order).returncode == 0
    found = [*Path(order["store"]).glob("*.ext4"), Path(order["root"])]
    assert len(found) == 3
    assert {(p.stat().st_uid, oct(p.stat().st_mode & 0o7777)) for p in found} == {(0, "0o600")}


@needs_root
def test_a_half_written_snapshot_is_not_there(order: dict[str, Any]) -> None:
    taken = verb("take", order)
    assert taken.returncode == 0, taken.stderr
    Path(order["store"], "one.json").unlink()
    assert snapshot.listing(order) == []
    assert verb("take", order).returncode == 0


@needs_root
def test_another_lab_s_node_of_that_name_is_not_waited_for(
    order: dict[str, Any], tmp_path: Path
) -> None:
    # Its folder's name is only known to the one that is at work there.
    other = {**order, "store": str(tmp_path / "other/node1")}
    with locked(snapshot._lock_path(other), "snapshot take"):
        taken = verb("take", order)
        assert (taken.returncode, "waits for" in taken.stderr) == (0, False), taken.stderr
        busy = verb("take", {**other, "snapshot": "two"})
        assert (busy.returncode, "snapshot take" in busy.stderr) == (1, True), busy.stderr


STEPS = ("link", "rename", "fsync", "unlink", "copy_file_range")


@needs_root
def test_a_restore_killed_at_any_step_leaves_a_root_and_is_undone_or_done(tmp_path: Path) -> None:
    root, store = tmp_path / "node1/root.ext4", tmp_path / "snapshots"
    root.parent.mkdir()
    store.mkdir()
    order = {"name": "node1", "dir": str(root.parent), "umid": "node1", "root": str(root)}
    order |= {"store": str(store), "snapshot": "one"}
    stamp = Path(f"{root}.json")
    (store / "one.ext4").write_text("before")
    about = {"at": 1, "size": 6, "root_stamp": {"key": "base"}}
    (store / "one.json").write_text(json.dumps(about))
    step = 0
    while True:
        root.write_text("after")
        stamp.write_text('{"key": "other"}')
        step += 1
        killed = killed_at(step, lambda: snapshot.restore(order), STEPS)
        # There is a root at every moment, and its stamp is its own once anybody looked.
        known = snapshot.listing(order)
        snapshot.recover(order)
        assert snapshot.listing(order) == known
        done = (root.read_text(), json.loads(stamp.read_text())["key"])
        assert done in (("after", "other"), ("before", "base")), step
        for row in known:
            kept = Path(snapshot.image(order, row["name"])).read_text()
            assert kept == ("before" if row["name"] == "one" else "after"), step
            if row["name"] != "one":
                snapshot.remove({**order, "snapshot": row["name"]})
        if not killed:
            break
    assert step > 8 and done == ("before", "base")
    assert sorted(p.name for p in root.parent.iterdir()) == ["root.ext4", "root.ext4.json"]


def test_a_root_that_an_earlier_restore_left_aside_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / "root.ext4.aside"
    aside.write_text("what its user put there")
    spec = {"nodes": {"node1": {"path": str(tmp_path / "root.ext4"), "made": {}}}, "cache": "/x"}
    root.make(spec, "node1")
    assert (tmp_path / "root.ext4").read_text() == "what its user put there"
    assert not aside.exists()


# In fsfreeze's place: notes what it was asked.
FAKE = '#!/bin/sh\necho "$1" >>"$NOTES"; exit ${FAILS:-0}\n'


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/fsfreeze"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", f"{tmp_path}/notes")
    return {"name": "node1", "dir": str(tmp_path), "umid": "node1", "ssh": ["sh", "-c"]}


def notes(guest: dict[str, Any]) -> list[str]:
    return Path(guest["dir"], "notes").read_text().split()


def test_a_guest_is_frozen_and_thawed(guest: dict[str, Any]) -> None:
    with quiesce.still(guest) as how:
        assert how == "frozen"
        assert notes(guest) == ["-f"]
    assert notes(guest) == ["-f", "-u"]


def test_it_thaws_whatever_happens_meanwhile(guest: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="disk full"), quiesce.still(guest):
        raise OSError("disk full")
    assert notes(guest) == ["-f", "-u"]


def test_it_thaws_by_itself_when_the_one_who_asked_is_killed(guest: dict[str, Any]) -> None:
    code = (
        "import json, sys, os, signal; from umlaan.agent import quiesce\n"
        "with quiesce.still(json.loads(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    words = [sys.executable, "-S", "-c", code, json.dumps(guest)]
    assert (
        subprocess.run(words, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}).returncode
        == -9
    )
    deadline = time.monotonic() + 60
    while notes(guest) != ["-f", "-u"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert notes(guest) == ["-f", "-u"]


def test_one_that_neither_freezes_nor_pauses(
    guest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(quiesce.Restless, match="does not pause it"), quiesce.still(guest):
        pass
    assert notes(guest) == ["-f"]


@pytest.mark.parametrize("answers", [(True, "OK"), (False, "Already stopped")])
def test_one_that_cannot_freeze_is_paused(
    guest: dict[str, Any], monkeypatch: pytest.MonkeyPatch, answers: tuple[bool, str]
) -> None:
    """One that its user had paused before stays paused."""
    asked: list[str] = []

    def ask(_: str, command: str, timeout: float = 5.0) -> tuple[bool, str]:
        asked.append(command)
        return answers

    monkeypatch.setenv("FAILS", "1")
    monkeypatch.setattr(quiesce.mconsole, "ask", ask)
    with quiesce.still(guest) as how:
        assert how == "paused"
    assert asked == (["stop", "go"] if answers[0] else ["stop"])


@pytest.mark.parametrize("name", ["before-upgrade", "a", "v1.2_3", "x" * 64])
def test_good_names(name: str) -> None:
    assert plan.bad_name(name) is None


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "-x", "a b", "a/b", "x" * 65, "ä"])
def test_bad_names(name: str) -> None:
    assert "cannot be a snapshot's name" in (plan.bad_name(name) or "")


def test_a_users_partition_is_refused() -> None:
    rows = [HostData("@local", False), HostData("@uml/node1", True, {"root": "/dev/sdb6"})]
    assert "umlaan neither copies nor replaces" in (
        plan.refusal(build_lab(rows).node("node1")) or ""
    )
    made = build_lab([HostData("@local", False), HostData("@uml/node1", True)]).node("node1")
    assert plan.refusal(made) is None
    assert plan.store(made) == "/var/lib/umlaan/umlaan/snapshots/node1"
