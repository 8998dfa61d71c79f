"""What a machine lacks, each in one line with its remedy; a whole machine lacks nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from umlaan.agent import preflight as agent
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.plan.preflight import Report, judge, probe_spec

GIB = 1 << 30


def lab_of(data: dict[str, Any] | None = None, nodes: int = 1) -> Lab:
    shared = data or {}
    rows = [HostData("@local", False, shared)]
    return build_lab([*rows, *(HostData(f"@uml/node{n + 1}", True, shared) for n in range(nodes))])


def machine(**changes: Any) -> dict[str, Any]:
    """A fresh Debian 12 on which the default lab fits."""
    disk = {
        "mount": "/",
        "device": 1,
        "free": 20 * GIB,
        "size": 40 * GIB,
        "free_inodes": 2_000_000,
        "read_only": False,
    }
    shm = {"path": "/dev/shm", "there": True, "noexec": False, "size": 8 * GIB, "free": 8 * GIB}
    found: dict[str, Any] = {
        "uid": 0,
        "tun": "",
        "loop": "",
        "namespaces": ["mount", "net", "pid"],
        "unshare": "",
        "disks": [
            {**disk, "path": "/var/lib/umlaan/umlaan"},
            {**disk, "path": "/root/.cache/umlaan"},
        ],
        "memory_folders": [shm],
        "ext4": True,
        "machine": "x86_64",
        "os": "debian",
        "os_version": "12",
        "os_name": "Debian GNU/Linux 12 (bookworm)",
        "python": [3, 11, 2],
        "cgroup_v1_memory": False,
        "commands": {"apt-get": "/usr/bin/apt-get"},
        "kernels": [],
        "bases": [],
        "nodes": [],
        "missing_paths": [],
    }
    for key, value in changes.items():
        if key == "disk":
            found["disks"] = [{**each, **value} for each in found["disks"]]
        elif key == "shm":
            found["memory_folders"] = [{**shm, **value}]
        else:
            found[key] = value
    return found


def report(data: dict[str, Any] | None = None, count: int = 1, **changes: Any) -> Report:
    lab = lab_of(data, count)
    return judge(lab, lab.hosts[0], machine(**changes))


def test_a_whole_machine_lacks_nothing() -> None:
    assert report() == Report((), ())


LACKS = {
    "user": ({"uid": 1000}, "root: the run has user id 1000", "--sudo"),
    "tun": ({"tun": "No such file or directory"}, "/dev/net/tun: No such file", "modprobe tun"),
    "namespaces": (
        {"unshare": "unshare failed: Operation not permitted"},
        "namespaces (mount, net, pid): unshare failed",
        "CAP_SYS_ADMIN",
    ),
    "loop": ({"loop": "No such file or directory"}, "/dev/loop-control: No such", "modprobe loop"),
    "ext4": ({"ext4": False}, "ext4: ", "CONFIG_EXT4_FS"),
    "architecture": ({"machine": "aarch64"}, "architecture: aarch64", "use an x86_64 machine"),
    "old python": ({"python": [3, 9, 2]}, "python3: 3.9.2 is there, 3.11", "Debian 12"),
    "no python": ({"python": None}, "python3: there is none", "apt-get install"),
    "no apt": ({"commands": {}}, "apt-get: there is none on Debian", "use Debian 12"),
    "space": (
        {"disk": {"free": 2 * GIB}},
        "space: / has 2.0 GiB free, the lab needs 5.5 GiB there",
        "set state_dir and cache_dir to another file system",
    ),
    "inodes": ({"disk": {"free_inodes": 900}}, "inodes: / has 900 free", "set state_dir"),
    "read-only": ({"disk": {"read_only": True}}, "space: / is read-only", "set state_dir"),
    "noexec": ({"shm": {"noexec": True}}, "/dev/shm: mounted noexec", "mount -o remount,exec"),
    "small shm": (
        {"shm": {"size": GIB // 16}},
        "/dev/shm: 64 MiB in all, the memory of 1 node needs 1.0 GiB",
        "remount,size=1024m",
    ),
    "no shm": ({"shm": {"there": False}}, "/dev/shm: not there", "mount -t tmpfs"),
}


@pytest.mark.parametrize("name", LACKS)
def test_each_lack_is_one_line_with_its_remedy(name: str) -> None:
    changes, start, remedy = LACKS[name]
    (line,) = report(**changes).lacks
    assert line.startswith(start)
    assert remedy in line
    assert "\n" not in line


def test_all_lacks_are_said_at_once() -> None:
    found = report(tun="x", unshare="y", machine="riscv64", shm={"noexec": True})
    assert len(found.lacks) == 4
    lab = lab_of()
    text = found.message(lab.hosts[0])
    assert text.splitlines()[0] == (
        "preflight: node0 (@local) lacks what the lab needs; nothing was changed"
    )
    assert len(text.splitlines()) == 5


def test_what_is_built_already_needs_no_space_again() -> None:
    small = {"free": GIB}
    assert report(disk=small).lacks
    assert report(disk=small, kernels=["k"], bases=["b"], nodes=["node1"]).lacks == ()


def test_a_ready_kernel_and_a_partition_need_next_to_none() -> None:
    data = {"kernel": "ready:package:user-mode-linux", "root": "/dev/sdb6"}
    assert report(data, disk={"free": GIB}, loop="No such file or directory").lacks == ()


def test_two_file_systems_are_judged_apart() -> None:
    found = machine()
    found["disks"][1].update(device=2, mount="/root", free=GIB)
    lab = lab_of()
    (line,) = judge(lab, lab.hosts[0], found).lacks
    assert line.startswith("space: /root has 1.0 GiB free, the lab needs 4.8 GiB")
    assert "set cache_dir to" in line


def test_a_users_partition_that_is_not_there() -> None:
    (line,) = report({"root": "/dev/sdb6"}, missing_paths=["/dev/sdb6"]).lacks
    assert line == "root of node1: /dev/sdb6 is not there; correct it, or make it"


def test_memory_that_might_not_do_is_a_note() -> None:
    found = report(count=3, shm={"size": 2 * GIB})
    assert found.lacks == ()
    (note,) = found.notes
    assert note.startswith("memory: the nodes' mem adds up to 3.0 GiB, /dev/shm holds 2.0 GiB")


def test_another_system_is_a_note() -> None:
    found = report(os="ubuntu", os_version="24.04", os_name="Ubuntu 24.04")
    assert found.lacks == ()
    assert "tried on Debian 12, this is Ubuntu 24.04" in found.notes[0]


def test_the_probe_answers_what_the_judge_reads() -> None:
    lab = lab_of({"node.tmpdir": "/tmp"})
    spec = json.loads(probe_spec(lab, lab.hosts[0]))
    found = agent.probe(spec)
    assert set(machine()) <= set(found)
    assert set(machine()["disks"][0]) <= set(found["disks"][0])
    assert [folder["path"] for folder in found["memory_folders"]] == ["/tmp"]
    judge(lab, lab.hosts[0], found)


def test_a_folder_that_is_not_there_yet_counts_where_it_will_be(tmp_path: Any) -> None:
    found = agent.disk(str(tmp_path / "not" / "yet"))
    assert found["free"] > 0
    assert found["mount"] == agent.mount_point(str(tmp_path))
    assert agent.openable("/no/such/device") == "No such file or directory"


def test_a_folder_that_is_not_the_labs_is_a_lack() -> None:
    text = "state_dir: /var/lib/umlaan/umlaan holds log and no lab.json: it is no lab's folder"
    assert report(state={"kind": "refused", "text": text, "real": "/x"}).lacks == (text,)


def test_a_link_to_a_folder_of_the_systems_is_a_lack() -> None:
    (line,) = report(state={"kind": "new", "text": "", "real": "/srv"}).lacks
    assert line.startswith("state_dir: /var/lib/umlaan/umlaan leads to /srv, which is not the lab")


def test_what_a_link_makes_a_part_of_the_labs_folder_is_a_lack() -> None:
    rows = [["/srv/a.ext4", "/var/lib/umlaan/umlaan", "in"]]
    (line,) = report({"root": "/srv/a.ext4"}, clashes=rows).lacks
    assert line == (
        "root: /srv/a.ext4 lies in state_dir (/var/lib/umlaan/umlaan), a folder of the lab's own; "
        "put it elsewhere"
    )


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ({"root": "/srv/a"}, "FIFO", "root: /srv/a is a FIFO, which is no file or device"),
        ({"root": "/srv/a"}, "directory", "is a directory, which is no file or device"),
        (
            {"node": {"hostfs": "/srv/a"}},
            "file",
            "node.hostfs: /srv/a is a file, which is no direc",
        ),
        ({"dvs": "/srv/a"}, "FIFO", "dvs.source: /srv/a is a FIFO, which is no directory or file"),
        ({"dvs": "/srv/a"}, "file", ""),
        ({"dvs": "/srv/a"}, "nothing", ""),
        ({"kernel": {"overlays": ["/srv/a"]}}, "socket", "kernel.overlays: /srv/a is a socket"),
        ({"node": {"hostfs": "/srv/a"}}, "directory", ""),
        ({"root": "/srv/a"}, "device", ""),
    ],
)
def test_what_is_of_another_kind_is_a_lack(data: dict[str, Any], kind: str, message: str) -> None:
    lines = report(data, kinds={"/srv/a": kind}).lacks
    assert len(lines) == bool(message)
    assert all(message in line for line in lines)


def test_one_file_by_two_names_is_a_lack() -> None:
    data = {"node": {"disks": ["/srv/a", "/srv/b"]}}
    (line,) = report(data, twice=[["/srv/a", "/srv/b"]]).lacks
    assert line.endswith("/srv/b and /srv/a are one and the same; each needs its own")
