"""The main job on a real UML node: first run, second run, each drift repaired alone, destroy.

The tests of this module share one lab and run in order: each leaves it converged.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import REPO, Lab, Result

pytestmark = pytest.mark.timeout(1800)


# Of nobody in particular: what any local user may do, this one may.
OTHER = ("setpriv", "--reuid=61234", "--regid=61234", "--clear-groups")


@pytest.fixture(scope="module", autouse=True)
def umask() -> Iterator[None]:
    """The lab is made with the widest umask that there is, and lived in with the narrowest."""
    before = os.umask(0)
    yield
    os.umask(before)


def converged(lab: Lab) -> None:
    again = lab.deploy()
    assert (again.changed, again.verdict, again.code) == (0, "up", 0), again.output


def repaired(lab: Lab, *words: str, changed: int | None = None) -> Result:
    """One run repairs, in these words; the next changes nothing."""
    result = lab.deploy()
    for text in words:
        assert text in result.output, result.output
    assert (result.verdict, result.code) == ("up", 0), result.output
    assert result.changed > 0
    if changed is not None:
        assert result.changed == changed, result.output
    converged(lab)
    return result


def pid_of(lab: Lab, node: str = "node1") -> int:
    import json

    record = json.loads((lab.state_dir / "nodes" / node / "launch.json").read_text())
    return int(record["pid"])


def test_a_plan_for_nothing_changes_nothing(lab: Lab) -> None:
    plan = lab.dry()
    assert plan.verdict == "absent", plan.output
    assert plan.changed > 5 and plan.code == 0
    assert "bridge br0: make, it is missing" in plan.output
    with_yes = lab.pyinfra("deploy.py", options=("-y", "--dry"))
    assert (with_yes.changed, with_yes.verdict) == (plan.changed, "absent"), with_yes.output
    assert not (lab.state_dir / "nodes").exists()
    assert lab.name not in subprocess.run(["ip", "netns"], text=True, capture_output=True).stdout


def test_first_run_ends_with_a_verified_node(lab: Lab) -> None:
    result = lab.deploy()
    assert (result.code, result.verdict, result.failed) == (0, "up", 0), result.output
    assert "DVS tree            /usr/src/dvs           as built" in result.output


def test_nothing_of_the_lab_is_another_users(lab: Lab) -> None:
    lab.folder.chmod(0o755)
    everything = [lab.state_dir, *lab.state_dir.rglob("*"), Path("/run/umlaan")]
    modes = {path: path.lstat().st_mode for path in everything}
    open_ = {p: oct(m) for p, m in modes.items() if not stat.S_ISLNK(m) and m & 0o022}
    assert not open_
    sockets = [path for path, mode in modes.items() if stat.S_ISSOCK(mode)]
    secret = ["ssh/id_ed25519", "ssh/node1_host_ed25519_key", "nodes/node1/root.ext4"]
    secret += ["nodes/node1/console.log", "nodes/node1/launch.json", "log", "run", "lab.json"]
    paths = [
        *(lab.state_dir / name for name in secret),
        *sockets,
        *Path("/run/umlaan").glob("*.lock"),
    ]
    assert sockets and all(path.exists() for path in paths)
    script = 'ls "$0" 2>/dev/null; for p; do [ -r "$p" ] || [ -w "$p" ] && echo "$p"; done; true'
    done = subprocess.run(
        [*OTHER, "sh", "-c", script, lab.state_dir, *paths], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    os.umask(0o077)


def test_second_run_changes_nothing_and_is_quick(lab: Lab) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = lab.deploy()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (result.changed, result.verdict) == (0, "up"), result.output
    # 5 s is the aim on an idle machine; what the run itself computes does not depend on others.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert min(result.seconds, lab.deploy().seconds, lab.deploy().seconds) < 30


def test_a_plan_of_a_converged_lab_is_empty(lab: Lab) -> None:
    plan = lab.dry()
    assert (plan.changed, plan.verdict, plan.code) == (0, "up", 0), plan.output


def test_exec_and_files_reach_a_live_guest(lab: Lab, tmp_path: Path) -> None:
    said = lab.exec("@uml/node1", "cat", "/etc/hostname").output
    assert "[@uml/node1] node1" in (line.strip() for line in said.splitlines()), said
    files_both_ways(lab, tmp_path)
    assert lab.exec("@uml/node1", "false").code != 0


def files_both_ways(lab: Lab, tmp_path: Path) -> None:
    """pyinfra's own operations and a 10 MB file of any bytes, there and back."""
    content = os.urandom(10_000_000)
    (tmp_path / "big").write_bytes(content)
    (tmp_path / "word.j2").write_text("I am {{ host.name }}\n")
    deploy = tmp_path / "files_deploy.py"
    deploy.write_text(
        "from pyinfra.operations import files, apt\n"
        f"files.put(name='put', src='{tmp_path}/big', dest='/root/big')\n"
        f"files.template(name='template', src='{tmp_path}/word.j2', dest='/root/word')\n"
        f"files.get(name='get', src='/root/big', dest='{tmp_path}/back')\n"
        "apt.packages(name='apt', packages=['openssh-server'], no_recommends=True)\n"
    )
    options = ("-y", "--limit", "@uml/node1")
    result = lab.pyinfra(str(deploy), options=options)
    assert result.code == 0, result.output
    assert (tmp_path / "back").read_bytes() == content
    (tmp_path / "back").unlink()
    assert "I am @uml/node1" in lab.exec("@uml/node1", "cat", "/root/word").output
    assert lab.exec("@uml/node1", "rm", "/root/big", "/root/word").code == 0


def test_bridge_deleted(lab: Lab) -> None:
    assert lab.inside("ip", "link", "del", "br0").returncode == 0
    repaired(lab, "bridge br0: make, it is missing", "tap HTAP")


def test_tap_detached(lab: Lab) -> None:
    assert lab.inside("ip", "link", "set", "HTAP", "nomaster").returncode == 0
    repaired(lab, "tap HTAP: enslave to br0", changed=1)


def test_address_changed(lab: Lab) -> None:
    lab.inside("ip", "addr", "del", "192.168.1.10/24", "dev", "br0")
    lab.inside("ip", "addr", "add", "192.168.1.77/24", "dev", "br0")
    repaired(lab, "192.168.1.77/24")


def test_guest_killed(lab: Lab) -> None:
    os.kill(pid_of(lab), signal.SIGKILL)
    repaired(lab, "node1: start, ", changed=None)


def test_guest_shut_down_by_its_user(lab: Lab) -> None:
    lab.exec("@uml/node1", "poweroff")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and Path(f"/proc/{pid_of(lab)}/exe").exists():
        time.sleep(0.2)
    plan = lab.dry()
    assert plan.verdict == "down", plan.output
    repaired(lab, "node1: start, ")


def test_a_file_in_the_guests_etc_edited(lab: Lab) -> None:
    assert lab.exec("@uml/node1", "sh -c 'echo 10.9.9.9 node0 >> /etc/hosts'").code == 0
    result = repaired(lab, "node1 /etc/hosts: write, it differs", changed=1)
    assert "10.9.9.9" not in lab.exec("@uml/node1", "cat", "/etc/hosts").output, result.output


def test_dvs_tree_damaged_in_the_stopped_root(lab: Lab, tmp_path: Path) -> None:
    stop = tmp_path / "stop_deploy.py"
    stop.write_text("from tasks import launch\nlaunch.stop()\n")
    done = lab.pyinfra(str(stop), options=("-y", "--limit", "@uml/node1"))
    assert done.code == 0, done.output
    damage = "echo mine > /usr/src/dvs/received.txt; rm /usr/src/dvs/dvk-lib/libdvkipc.so"
    assert lab.exec("@uml/node1", f"sh -c '{damage}'").code == 0
    files_both_ways(lab, tmp_path)
    repaired(lab, "node1 /usr/src/dvs: unpack dvs.tar.gz, dvk-lib/libdvkipc.so differ")
    kept = lab.exec("@uml/node1", "cat", "/usr/src/dvs/received.txt")
    assert "mine" in kept.output


def test_dvs_source_edited(lab: Lab) -> None:
    copy = lab.folder / "dvs-source"
    shutil.copytree(REPO / "examples" / "sample-dvs", copy)
    lab.data["dvs.source"] = str(copy)
    assert lab.deploy().verdict == "up"
    with (copy / "dvk-lib" / "dvk.h").open("a") as file:
        file.write("/* edited */\n")
    repaired(lab, "DVS ipc: rebuild, source changed: dvk-lib/dvk.h")


def test_one_kernel_option_changed(lab: Lab) -> None:
    lab.host_data["@uml/node1"] = {
        "kernel.options": {"CONFIG_LOCALVERSION": "-tried"},
    }
    result = repaired(lab, "CONFIG_LOCALVERSION")
    assert "-tried" in lab.exec("@uml/node1", "uname", "-r").output, result.output
    lab.host_data.clear()
    repaired(lab, "node1: restart")


def test_built_kernel_truncated(lab: Lab) -> None:
    kernels = list((lab.state_dir / "kernels").glob("*/linux"))
    assert kernels
    for path in kernels:
        beside = path.with_suffix(".short")
        beside.write_bytes(path.read_bytes()[:1000])
        beside.rename(path)
    result = lab.deploy()
    assert "linux" in result.output and result.changed >= 1, result.output
    assert result.verdict == "up"
    converged(lab)


def test_an_unknown_user_file_in_the_state_folder_survives_destroy(lab: Lab) -> None:
    mine = lab.state_dir / "my-notes.txt"
    mine.write_text("mine")
    result = lab.destroy()
    assert (result.verdict, result.code) == ("absent", 0), result.output
    assert mine.read_text() == "mine"
    again = lab.destroy()
    assert (again.changed, again.verdict, again.code) == (0, "absent", 0), again.output
    assert [path.name for path in sorted(lab.state_dir.iterdir())] == ["lab.json", "my-notes.txt"]
    mine.unlink()
    assert lab.destroy().verdict == "absent" and not lab.state_dir.exists()
    again = lab.destroy()
    assert (again.changed, again.verdict, again.code) == (0, "absent", 0), again.output
