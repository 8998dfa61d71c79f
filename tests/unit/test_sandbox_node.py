"""What a UML sees and is on the lab host, with other programs in its place."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.uml import REPOSITORY, agent, state_of, until
from umlaan.agent import proc, rootlock, sandbox_node

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts, becomes another user")

NOBODY = pwd.getpwnam("nobody")
BUSYBOX = "/bin/busybox"


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    uml = tmp_path / "node9" / "uml"
    uml.mkdir(parents=True)
    os.chown(uml, NOBODY.pw_uid, NOBODY.pw_gid)
    return {
        "user": "nobody",
        "dir": str(uml.parent),
        "uml_dir": str(uml),
        "tmpdir": None,
        "memory": None,
        "mem": 1 << 20,
        "hostfs": None,
        "hostfs_writable": False,
    }


def run(spec: dict[str, Any], *argv: str) -> subprocess.CompletedProcess[str]:
    return agent("node-sandbox", spec, "--", *argv)


def shell(spec: dict[str, Any], script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run(spec, BUSYBOX, "sh", "-c", script, *words)


@pytest.fixture
def held(spec: dict[str, Any]) -> Iterator[Callable[..., int]]:
    """Starts a sandbox that stays; its pid once its program runs."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> int:
        argv = [BUSYBOX, "sh", "-c", "sleep 300; :", *words]
        command = [sys.executable, "-S", "-m", "umlaan.agent", "node-sandbox", json.dumps(spec)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        one = subprocess.Popen(
            [*command, "--", *argv], env=environment, start_new_session=True, stdout=-3
        )
        started.append(one)
        until(lambda: proc.cmdline(one.pid) == argv)
        return one.pid

    yield start
    for one in started:
        os.killpg(one.pid, 9)
        one.wait()


def test_it_is_nobody_and_can_become_nobody_else(held: Callable[..., int]) -> None:
    rows = dict(
        line.split(":", 1) for line in Path(f"/proc/{held()}/status").read_text().splitlines()
    )
    assert rows["Uid"].split() == [str(NOBODY.pw_uid)] * 4
    assert rows["Gid"].split() == [str(NOBODY.pw_gid)] * 4
    assert rows["Groups"].split() == []
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(rows[kind], 16) == 0, kind
    assert rows["NoNewPrivs"].strip() == "1"


def test_its_file_system_holds_what_it_needs_and_nothing_else(
    held: Callable[..., int], spec: dict[str, Any]
) -> None:
    top = Path(f"/proc/{held()}/root")
    found = {f"/{path.relative_to(top)}" for path in top.rglob("*") if not path.is_dir()}
    # A socket at which root waits for an answer of some node: none can list that folder.
    found = {path for path in found if not path.startswith("/run/umlaan/reply/")}
    devices = {"null", "zero", "full", "random", "urandom", "net/tun"}
    assert found == {
        BUSYBOX,
        "/proc/cpuinfo",
        "/proc/self/exe",
        *(f"/dev/{name}" for name in devices),
    }
    info = (top / "dev/net/tun").stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (NOBODY.pw_uid, 0o600)
    assert (top / spec["uml_dir"].lstrip("/")).is_dir()


def test_it_writes_its_own_folder_and_memory_alone(spec: dict[str, Any]) -> None:
    places = [spec["uml_dir"], "/dev/shm", "/", "/dev", "/run/umlaan/reply", spec["dir"]]
    script = "for d; do ( : >$d/x ) 2>/dev/null && echo $d; done; exit 0"
    done = shell(spec, script, "sh", *places)
    assert done.stdout.split() == places[:2], done.stderr


def test_a_dynamic_kernel_finds_its_libraries(spec: dict[str, Any]) -> None:
    done = run(spec, "/bin/ls", "/")
    assert done.returncode == 0, done.stderr
    assert not {"root", "home", "sys", "boot"} & set(done.stdout.split())


def test_the_shared_folder_is_not_left_and_read_only_unless_told(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (share / "file").write_text("shared\n")
    (tmp_path / "secret").write_text("secret\n")
    os.chown(share, NOBODY.pw_uid, NOBODY.pw_gid)
    spec["hostfs"] = str(share)
    script = "cd $0; cat file; cat ../secret ../../../etc/shadow; : >new && echo written; exit 0"
    done = shell(spec, script, str(share))
    assert done.stdout == "shared\n"
    assert "Read-only file system" in done.stderr
    done = shell({**spec, "hostfs_writable": True}, script, str(share))
    assert done.stdout == "shared\nwritten\n"
    assert (share / "new").stat().st_uid == NOBODY.pw_uid


def test_an_image_of_umlaan_s_is_the_file_itself(spec: dict[str, Any]) -> None:
    image = Path(spec["dir"], "root.ext4")
    image.write_bytes(b"old\n")
    os.chown(image, NOBODY.pw_uid, NOBODY.pw_gid)
    done = shell(spec, "cat $0; echo new >$0; [ -f $0 ]", str(image), f"ubda={image}")
    assert (done.returncode, done.stdout) == (0, "old\n"), done.stderr
    assert image.read_bytes() == b"new\n"


def test_a_user_s_image_keeps_its_owner_and_gets_no_other_rights(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    image = tmp_path / "mine.ext4"
    image.write_bytes(b"old\n" + b"\0" * 4092)
    image.chmod(0o600)
    write = "echo new | dd of=$0 conv=notrunc 2>/dev/null && chmod 4755 $0"
    script = f"head -n 1 $0; {write}; [ -b $0 ]"
    done = shell(spec, script, str(image), f"ubdb={image}")
    assert (done.returncode, done.stdout) == (0, "old\n"), done.stderr
    until(lambda: image.read_bytes().startswith(b"new\n"))
    info = image.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (0, 0, 0o600)
    until(lambda: not _attached(image))


def _attached(image: Path) -> bool:
    return bool(subprocess.run(["losetup", "-j", image], capture_output=True).stdout)


def test_a_partition_keeps_its_owner_and_is_the_guest_s(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    image = tmp_path / "disk"
    image.write_bytes(b"old\n" + b"\0" * 4092)
    words = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    try:
        before = os.stat(device)
        done = shell(spec, "head -n 1 $0; : >>$0", device, f"ubda={device}")
        assert (done.returncode, done.stdout) == (0, "old\n"), done.stderr
        after = os.stat(device)
        assert (after.st_uid, after.st_gid, after.st_mode) == (
            before.st_uid,
            before.st_gid,
            before.st_mode,
        )
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_user_s_disk_that_another_program_has_locked_is_refused(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    image = tmp_path / "mine.ext4"
    image.write_bytes(b"\0" * 4096)
    with open(image, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        done = shell(spec, "echo started", f"ubda={image}")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{image}: another UML or program has locked it" in done.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ubda=/nowhere/root", "/nowhere/root is not there"),
        ("ubda=/a,/dev/null", "/a is not there"),
    ],
)
def test_a_disk_that_is_not_there_is_named(spec: dict[str, Any], word: str, message: str) -> None:
    done = shell(spec, "echo started", word)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_disks_of_a_command_line() -> None:
    words = ["linux", "ubda=/dev/sdb6", "ubd1r=/srv/n.cow,/srv/base", "hostfs=/srv", "ubdb=none"]
    pair = {"/srv/n.cow": "cow", "/srv/base": "base"}
    assert sandbox_node.disks_of(words) == {"/dev/sdb6": "disk", **pair}


def test_a_copy_on_write_pair_is_used_as_the_user_may(spec: dict[str, Any], tmp_path: Path) -> None:
    cow, base = tmp_path / "n.cow", tmp_path / "base"
    word, script = f"ubdb={cow},{base}", f"cat {base}; echo new >{cow}; echo x >{base}; exit 0"
    for path, before, remedy in (
        (cow, None, "only a UML that runs as root makes one itself"),
        (cow, 0o600, f"chown nobody {cow}"),
        (base, 0o600, f"chmod a+r {base}"),
    ):
        if before is not None:
            path.write_text("old\n")
            path.chmod(before)
        done = shell(spec, script, word)
        assert (done.returncode, remedy in done.stderr) == (1, True), done.stderr
        if path == cow and before is not None:
            os.chown(cow, NOBODY.pw_uid, NOBODY.pw_gid)
    base.chmod(0o644)
    done = shell(spec, script, word)
    assert (done.returncode, done.stdout) == (0, "old\n"), done.stderr
    assert (cow.read_text(), base.read_text()) == ("new\n", "old\n")


def test_a_node_is_started_and_stopped_as_a_user(order: dict[str, Any], tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    script = ": >$TMPDIR/x && rm $TMPDIR/x && echo memory; while :; do sleep 1; done"
    argv = [BUSYBOX, "sh", "-c", script, *order["argv"][2:]]
    order |= {"argv": argv, "user": "nobody", "tmpdir": str(memory)}
    done = agent("node-start", order)
    assert done.returncode == 0, done.stderr
    log = Path(order["dir"], "console.log")
    until(lambda: "memory\n" in log.read_text())
    row = state_of(order)
    assert row["running"] and row["record"]["user"] == "nobody"
    for path, mode in ((Path(order["root"]), 0o600), (Path(order["dir"], "uml"), 0o700)):
        info = path.stat()
        assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (NOBODY.pw_uid, mode)
    assert os.listdir(memory) == ["nobody-node9"]
    assert rootlock.lock_path(order["root"]) not in writable(row["pid"])
    Path(order["dir"], "launch.json").unlink()
    assert state_of(order)["leftovers"], "found by its command line, as root's would be"
    done = agent("node-stop", order)
    assert done.returncode == 0, done.stderr
    until(lambda: os.listdir(memory) == [])


def writable(pid: int) -> set[str]:
    """The files that a process could write through what it has open."""
    folder = Path(f"/proc/{pid}/fd")
    return {
        os.readlink(link) for link in folder.iterdir() if stat.S_IMODE(link.lstat().st_mode) & 0o200
    }


def test_a_user_that_is_not_there_is_said_and_nothing_runs(order: dict[str, Any]) -> None:
    done = agent("node-start", {**order, "user": "umlaan-none"})
    assert done.returncode == 1
    assert "there is no user umlaan-none" in done.stderr
    assert "Traceback" not in done.stderr
