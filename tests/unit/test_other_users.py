"""Other local users of a lab host: what they make first, hold or say of themselves harms no one."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.others import KINDS, UID, as_other, public, squat, started_by_other
from tests.unit.uml import REPOSITORY, agent, state_of, until
from umlaan.agent import baseimage, files, mark, node, spec, sweep, trust

__all__ = ["public"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def run(public: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/run/umlaan as an earlier version left it: open to all, its locks readable."""
    folder = public / "run"
    folder.mkdir(mode=0o755)
    (folder / "a.lock").write_text("somebody of long ago (pid 1)\n")
    (folder / "a.lock").chmod(0o644)
    monkeypatch.setattr(files, "RUN", str(folder))
    return folder


def test_a_lock_can_be_held_by_nobody_else(run: Path) -> None:
    lock = run / "a.lock"
    with files.locked(str(lock), "a run"):
        pass
    said = as_other(lambda: os.open(lock, os.O_RDONLY))
    assert "PermissionError" in said, said
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_who_really_holds_a_lock_is_named(run: Path) -> None:
    lock = run / "a.lock"
    # It was opened while it could be, and says nothing of itself.
    held = subprocess.Popen(
        ["flock", "--no-fork", str(lock), "sh", "-c", "echo held; exec sleep 600"],
        stdout=subprocess.PIPE,
        user=UID,
        group=UID,
        extra_groups=[],
    )
    try:
        until(lambda: f" {held.pid} " in Path("/proc/locks").read_text())
        with pytest.raises(TimeoutError) as told, files.locked(str(lock), "a run"):
            pass
    finally:
        held.kill()
        held.wait()
    assert re.search(rf"held by user {UID}: .*\(pid {held.pid}\)", str(told.value)), told.value
    assert "long ago" not in str(told.value)


def test_a_holder_names_itself(run: Path) -> None:
    lock = str(run / "a.lock")
    words = [sys.executable, "-S", "-m", "umlaan.agent", "lock", "--path", lock, "--holder", "me"]
    with subprocess.Popen(
        words,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as held:
        assert held.stdout is not None and held.stdout.readline() == "locked\n"
        told = pytest.raises(TimeoutError, match=rf"held by me \(pid {held.pid}\)$")
        with told, files.locked(lock, "another"):
            pass


def test_another_users_process_with_a_nodes_words_is_left_alone(order: dict[str, Any]) -> None:
    """It is no part of the node: neither killed, nor in the way, nor counted."""
    theirs = started_by_other("umid=node9", f"uml_dir={order['dir']}/uml/")
    # One process: a shell's child would have its words until it is another program.
    script = "import signal; signal.pause()"
    words = ["umid=node9", f"uml_dir={order['dir']}/uml/"]
    mine = subprocess.Popen([sys.executable, "-S", "-c", script, *words], start_new_session=True)
    try:
        for one in (theirs, mine):
            until(lambda one=one: b"umid=" in Path(f"/proc/{one.pid}/cmdline").read_bytes())
        assert [m.pid for m in node.members(order)] == [mine.pid]
        assert sweep.clear(order) == 1
        done = agent("node-start", order)
        assert done.returncode == 0, done.stderr
        assert theirs.pid not in [m.pid for m in node.members(order)]
        done = agent("node-stop", order)
        assert done.returncode == 0, done.stderr
        assert theirs.poll() is None
    finally:
        for one in (theirs, mine):
            one.kill()
            one.wait()


def test_a_setuid_program_of_theirs_is_theirs(public: Path) -> None:
    """It runs as root, and its words are of the user's choosing."""
    program = public / "sleeper"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o4755)
    theirs = subprocess.Popen([program, "600"], user=UID, group=UID, extra_groups=[])
    try:
        until(lambda: os.readlink(f"/proc/{theirs.pid}/exe") == str(program))
        if os.stat(f"/proc/{theirs.pid}").st_uid != 0:
            pytest.fail("/tmp is nosuid: the test cannot show it")
        assert node.proc.user_of(theirs.pid) == UID
    finally:
        theirs.send_signal(signal.SIGKILL)
        theirs.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_what_others_made_is_not_believed(public: Path, kind: str) -> None:
    path = public / "DC7.sh"
    squat(path, kind)
    began = time.monotonic()
    found = node.dc_state(str(path))
    assert time.monotonic() - began < 5, "it waited for a FIFO's writer"
    assert found is not None and found["pid"] is None
    assert found["fault"].startswith("not believed: it "), found


def test_a_file_of_roots_own_is_read_and_another_name_of_one_is_not(public: Path) -> None:
    path = public / "DC7.sh"
    path.write_text("export DC7=77\n")
    assert trust.read(str(path)) == b"export DC7=77\n"
    path.chmod(0o666)
    with pytest.raises(PermissionError, match="written by others"):
        trust.read(str(path))
    path.chmod(0o644)
    os.link(path, public / "DC8.sh")
    with pytest.raises(PermissionError, match="another name"):
        trust.read(str(public / "DC8.sh"))
    with pytest.raises(FileNotFoundError):
        trust.read(str(public / "nothing"))


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("mine", None),
        ("mine/not/yet/there", None),
        ("theirs", f"belongs to user {UID}"),
        ("theirs/lab", f"belongs to user {UID}"),
        ("link/lab", f"link belongs to user {UID}"),
        ("mylink", f"belongs to user {UID}"),
        ("open", "may be written by others"),
        ("open/lab", "may be written by others"),
        ("", "may be written by others"),
    ],
)
def test_a_folder_that_root_runs_from_is_roots_along_its_whole_path(
    public: Path, where: str, fault: str | None
) -> None:
    (public / "mine").mkdir(mode=0o711)
    (public / "open").mkdir()
    (public / "open").chmod(0o777)
    assert as_other(lambda: (public / "theirs").mkdir()) == ""
    assert as_other(lambda: (public / "link").symlink_to(public / "mine")) == ""
    (public / "mylink").symlink_to("theirs")
    found = trust.fault_of(str(public / where), shared=False)
    assert found is None if fault is None else fault in (found or ""), found


@pytest.fixture(params=[0o000, 0o077], ids=["umask 000", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def walked(top: Path) -> dict[str, str]:
    """{path below: mode} of all that stands in a folder, its own mode under "."."""
    found = {".": top.stat().st_mode}
    for folder, names, more in os.walk(top):
        for name in (*names, *more):
            path = Path(folder, name)
            found[str(path.relative_to(top))] = path.lstat().st_mode
    return {name: oct(stat.S_IMODE(mode)) for name, mode in sorted(found.items())}


def test_a_start_makes_the_same_modes_under_any_umask(
    order: dict[str, Any], umask: int, tmp_path: Path
) -> None:
    order["dir"] = str(tmp_path / "state/nodes/node9")
    order["argv"][-1] = f"uml_dir={order['dir']}/uml/"
    order["argv"].append("slow=0")
    assert agent("node-start", order).returncode == 0
    until(lambda: os.path.exists(f"{order['dir']}/uml/node9/mconsole"))
    assert state_of(order)["running"]
    found = walked(tmp_path / "state")
    agent("node-stop", order)
    assert (found["."], found["nodes"], found["nodes/node9"]) == ("0o711", "0o711", "0o700")
    assert found["nodes/node9/console.sock"] == "0o600"
    assert found["nodes/node9/launch.lock"] == "0o600"
    others = {name: mode for name, mode in found.items() if int(mode, 8) & 0o022}
    assert not others


def test_every_verb_sets_the_umask(umask: int, tmp_path: Path) -> None:
    code = (
        "import os, sys; from umlaan.agent import __main__ as agent, machine\n"
        "agent.VERBS['x'] = 'machine'; machine.main = lambda argv: 0\n"
        "agent.main(['x']); print(oct(os.umask(0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0o22\n", done.stderr


@pytest.mark.parametrize("kind", ["file", "folder", "link to a folder"])
def test_no_name_in_memory_blocks_a_base_image(
    public: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseimage, "MEMORY", str(public))
    monkeypatch.setattr(baseimage, "_roomy", lambda: True)
    work = str(tmp_path / "abc.work")
    os.mkdir(work)
    # What the name was: of the work's own path, and so known to everybody.
    import hashlib

    own = hashlib.sha256(os.fsencode(os.path.realpath(work))).hexdigest()[:12]
    theirs = public / f"umlaan-base-{own}-abc.work"
    squat(theirs, kind)
    with baseimage.scratch(work) as root:
        inside = Path(root).parent
        assert inside.parent == public
        assert (inside.stat().st_uid, stat.S_IMODE(inside.stat().st_mode)) == (0, 0o700)
    assert not inside.exists()
    assert os.path.lexists(theirs), "what is not ours is left alone"


def test_what_a_killed_one_left_in_memory_goes(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseimage, "MEMORY", str(public))
    (public / "umlaan-base-killed").mkdir()
    held = public / "umlaan-base-held"
    held.mkdir()
    descriptor = os.open(held, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with baseimage.scratch(str(tmp_path)):
            pass
    finally:
        os.close(descriptor)
    assert sorted(path.name for path in public.iterdir()) == ["umlaan-base-held"]


def test_what_is_brought_lands_where_nobody_else_can_write(tmp_path: Path, umask: int) -> None:
    landed = tmp_path / "state/kernels/k.tar.gz"
    assert agent("bring", "ready", str(landed.parent), str(landed)).returncode == 0
    assert stat.S_IMODE(landed.stat().st_mode) == 0o600
    # As sftp and pyinfra's own copy write it: the file that is there keeps its mode.
    subprocess.run(["cp", "/etc/hostname", str(landed)], check=True)
    assert stat.S_IMODE(landed.stat().st_mode) == 0o600
    assert not {n: m for n, m in walked(tmp_path).items() if int(m, 8) & 0o022}


@pytest.mark.parametrize("above", [True, False])
def test_no_verb_works_in_a_folder_that_another_can_write(public: Path, above: bool) -> None:
    """What lies there is run by root at once, or by the next run."""
    assert as_other(lambda: (public / "theirs").mkdir(mode=0o755)) == ""
    state = public / "theirs" / "lab" if above else public / "theirs"
    if above:
        state.mkdir()
    told = {mark.LAB: "lab1", mark.FOLDER: str(state)}
    for words in (["node-state", '{"nodes": []}'], ["spec", f"{state}/x", spec.encode({})]):
        done = subprocess.run(
            [sys.executable, "-S", "-m", "umlaan.agent", *words],
            env={**os.environ, **told, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == mark.REFUSED
        assert f"{public}/theirs belongs to user {UID}; root runs what lies there" in done.stderr
    assert not list(state.iterdir())


def test_a_state_folder_can_be_passed_through_and_not_listed(tmp_path: Path, umask: int) -> None:
    told = {mark.LAB: "lab1", mark.FOLDER: str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "umlaan.agent", "spec", f"{tmp_path}/state/a/spec.json"]
        + [spec.encode({})],
        env={**os.environ, **told, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = walked(tmp_path / "state")
    assert found == {
        ".": "0o711",
        "a": "0o755",
        "a/spec.json": "0o644",
        "lab.json": "0o600",
    }


@pytest.mark.parametrize(("before", "after"), [(0o000, 0o022), (0o077, 0o077), (0o027, 0o027)])
def test_a_run_gives_no_rights_to_others_and_takes_none_of_its_users_care(
    before: int, after: int
) -> None:
    own = os.umask(before)
    try:
        files.narrow_umask()
    finally:
        found = os.umask(own)
    assert found == after
