"""Real guests that hang, panic and die, a change of transport, and the ways into a node.

The tests share one lab and run in order; each leaves it converged.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import REPO, Lab, Result
from umlaan.agent import proc

pytestmark = pytest.mark.timeout(1800)
LAUNCH = "@uml/node1"


@pytest.fixture(scope="module")
def up(lab: Lab) -> Lab:
    lab.data |= {"node.boot_timeout": "30", "dvs": "null"}
    result = lab.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    return lab


def folder(lab: Lab) -> Path:
    return lab.state_dir / "nodes" / "node1"


def record(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder(lab) / "launch.json").read_text())
    return found


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def agent(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "umlaan.agent", *words],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )


def repaired(lab: Lab, *words: str) -> Result:
    """One run repairs, in these words; the next changes nothing."""
    result = lab.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    for text in words:
        assert text in result.output, result.output
    again = lab.deploy()
    assert (again.changed, again.verdict) == (0, "up"), again.output
    return result


ATTACK = """
mkdir -p /mnt/h
mount -t hostfs none /mnt/h && cat /mnt/h/file
touch /mnt/h/new && echo written
umount /mnt/h
mount -t hostfs -o ../../../../../../.. none /mnt/h && ls /mnt/h | sed s/^/top:/
cat /mnt/h/etc/shadow /mnt/h/root/.bashrc /mnt/h/$0
touch /mnt/h/new && echo written at the top
umount /mnt/h
exit 0
"""


def attack(lab: Lab, secret: Path) -> list[str]:
    """What a hostile root in the guest gets out of the lab host's files."""
    result = lab.umlaan("exec", "node1", "--", "sh", "-c", ATTACK, str(secret))
    assert result.code == 0, result.output
    return result.stdout.splitlines()


def reachable(path: Path, uid: int) -> bool:
    """Whether another user of the lab host can speak to a socket."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            # From here on: what stands above may be root's alone.
            os.chdir(path.parent.parent)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
                link.connect(f"{path.parent.name}/{path.name}")
            code = 0
        except PermissionError:
            code = 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    return code == 0


def test_root_in_a_guest_is_nobody_on_the_lab_host(up: Lab) -> None:
    share, secret = up.folder / "share", up.folder / "secret"
    share.mkdir()
    (share / "file").write_text("shared\n")
    secret.write_text("secret\n")
    up.data["node.hostfs"] = str(share)
    repaired(up, f"node1: restart, hostfs={share} comes")
    said = attack(up, secret)
    assert said[0] == "shared"
    tops = {line.removeprefix("top:") for line in said[1:]}
    assert tops <= {"dev", "etc", "lib", "lib64", "proc", "run", "var"}, said
    user = pwd.getpwnam(f"umlaan-{up.name}")
    status = Path(f"/proc/{record(up)['pid']}/status").read_text()
    rows = dict(line.split(":", 1) for line in status.splitlines())
    assert rows["Uid"].split() == [str(user.pw_uid)] * 4
    assert rows["Groups"].split() == []
    assert {int(rows[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert rows["NoNewPrivs"].strip() == "1"
    top = Path(f"/proc/{record(up)['pid']}/root")
    assert set(os.listdir(top)) == tops
    assert set(os.listdir(top / "etc")) <= {"ld.so.cache"}
    below = top / str(up.folder).lstrip("/")
    assert sorted(os.listdir(below)) == ["share", "state"]
    assert sorted(os.listdir(below / "state/nodes")) == ["node1"]
    assert sorted(os.listdir(below / "state/nodes/node1")) == ["root.ext4", "uml"]
    door = folder(up) / "uml" / "node1" / "mconsole"
    assert reachable(door, user.pw_uid) and not reachable(door, user.pw_uid + 4242)


def test_the_shared_folder_is_written_only_where_the_data_says_so(up: Lab) -> None:
    share = Path(up.data["node.hostfs"])
    user = pwd.getpwnam(f"umlaan-{up.name}")
    os.chown(share, user.pw_uid, user.pw_gid)
    assert "written" not in attack(up, share)
    up.data["node.hostfs_writable"] = "true"
    repaired(up, "node1: restart, hostfs read-only → writable")
    said = attack(up, share)
    assert "written" in said and "written at the top" not in said
    assert (share / "new").stat().st_uid == user.pw_uid


def test_the_procedure_s_own_way_is_root_and_said_and_left_by_one_restart(up: Lab) -> None:
    """As a lab that an older version launched: its UML is root's, and so is its tap."""
    for key in ("node.hostfs", "node.hostfs_writable"):
        del up.data[key]
    up.data["node.user"] = "root"
    warned = repaired(up, f"node1: restart, user umlaan-{up.name} → root", "can become root there")
    assert "tap HTAP" not in warned.output, "a tap that a guest holds waits for its launch"
    assert os.stat(f"/proc/{record(up)['pid']}").st_uid == 0
    del up.data["node.user"]
    repaired(up, f"node1: restart, user root → umlaan-{up.name}")
    assert os.stat(f"/proc/{record(up)['pid']}").st_uid == pwd.getpwnam(f"umlaan-{up.name}").pw_uid


def test_the_holder_s_death_leaves_the_guest_alone(up: Lab) -> None:
    pid = record(up)["pid"]
    holder = record(up)["holder"]["pid"]
    os.kill(holder, signal.SIGKILL)
    until(lambda: (found := proc.process(holder)) is None or found.dead)
    result = up.deploy()
    assert (result.changed, result.verdict) == (0, "up"), result.output
    assert record(up)["pid"] == pid


def test_killed_with_its_holder(up: Lab) -> None:
    # The guest has no holder since the last test: nobody ends its helpers, nobody saw it end.
    os.kill(record(up)["pid"], signal.SIGKILL)
    repaired(up, "node1: start, it is down")


def test_a_panic_is_named(up: Lab) -> None:
    door = folder(up) / "uml" / "node1" / "mconsole"
    said = agent("mconsole", str(door), "sysrq", "c")
    assert "cannot" not in said.stderr, said.stderr
    until(lambda: bool(record(up)["exit"]))
    repaired(up, "node1: start, it is down (its kernel panicked)")


def test_a_hung_guest_is_started_anew(up: Lab) -> None:
    until(lambda: time.time() - record(up)["started_at"] > 31, 40)
    os.kill(record(up)["pid"], signal.SIGSTOP)
    unknown = up.exec(LAUNCH, "cat", "/etc/hostname")
    assert unknown.code != 0
    assert "what it holds is unknown" in unknown.output
    repaired(up, "does not answer", "its mconsole does not answer", "stopped by SIGKILL")


def test_a_lost_record_is_no_reason_to_restart(up: Lab) -> None:
    pid = record(up)["pid"]
    (folder(up) / "launch.json").unlink()
    result = up.deploy()
    assert (result.changed, result.verdict) == (0, "up"), result.output
    assert Path(f"/proc/{pid}").exists()
    os.kill(pid, signal.SIGKILL)
    repaired(up, "node1: start, it is down")


@pytest.mark.parametrize("transport", ["vector", "tuntap"])
def test_a_tap_carries_either_transport_after_the_other(up: Lab, transport: str) -> None:
    up.data["node.transport"] = transport
    result = up.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    again = up.deploy()
    assert (again.changed, again.verdict) == (0, "up"), again.output
    wanted = "eth0=tuntap" if transport == "tuntap" else "vec0:transport"
    assert any(word.startswith(wanted) for word in record(up)["argv"])


def test_a_root_mounted_elsewhere_is_not_launched(up: Lab) -> None:
    up.exec(LAUNCH, "poweroff")
    until(lambda: bool(record(up)["exit"]))
    image = folder(up) / "root.ext4"
    script = f"mount -o loop {image} /mnt && echo mounted && read line"
    other = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mounted\n"
        result = up.deploy()
    finally:
        other.communicate()
    assert result.code != 0
    assert "is in use by loop device" in result.output
    assert "Traceback" not in result.output
    repaired(up, "node1: start, it is down (shut down)")


def test_a_daemon_started_in_a_stopped_root_ends_with_its_command(up: Lab) -> None:
    up.exec(LAUNCH, "poweroff")
    until(lambda: bool(record(up)["exit"]))
    word = f"77{os.getpid()}"
    result = up.exec(LAUNCH, f"(setsid sleep {word} >/dev/null 2>&1 </dev/null &) ; echo began")
    assert "began" in result.output
    assert subprocess.run(["pgrep", "-f", f"sleep {word}$"]).returncode == 1
    assert (
        str(folder(up))
        not in subprocess.run(["losetup", "-a"], capture_output=True).stdout.decode()
    )
    repaired(up, "node1: start")


def test_a_live_guest_without_a_gateway_installs_a_package(up: Lab) -> None:
    before = up.exec(LAUNCH, "command -v tree")
    assert before.code != 0
    words = ("apt.packages", "tree", "update=true")
    result = up.pyinfra(*words, options=("-y", "--limit", LAUNCH))
    assert result.code == 0, result.output
    assert "/usr/bin/tree" in up.exec(LAUNCH, "command -v tree").output
