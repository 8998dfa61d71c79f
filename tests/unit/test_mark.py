"""A state folder is the lab's by its mark: nobody else's is used, destroy names what it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from umlaan.agent import atomic, keys, mark, preflight, remove
from umlaan.facts.base import PACKAGE
from umlaan.model.lab import HostData, build_lab
from umlaan.plan import network_files
from umlaan.plan.network_state import wanted_of

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI umlaan {lab}\n"


def agent(lab: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A verb of the agent, told its lab and folder as every call is."""
    told = {mark.LAB: lab, mark.FOLDER: str(folder), "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-S", "-m", "umlaan.agent", *words],
        env={**os.environ, **told},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A folder in which no lab ever was, with names that a lab's has too."""
    folder = tmp_path / "project"
    for name in ("backup/monday.tar", "ssh/id_ed25519", "dvs/notes", "log/app.log", "nodes/a.img"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "ssh/id_ed25519.pub").write_text("ssh-ed25519 AAAA me@home\n")
    return folder


VERBS = [
    ["lock", "--path", "/nowhere/x.lock", "--lab", "x", "--holder", "me"],
    ["remove", "list", '{"state_dir": "%s"}'],
    ["remove", "do", '{"state_dir": "%s"}'],
    ["keys", "make", '{"dir": "%s/ssh", "lab": "x", "nodes": {}}'],
    ["node-state", '{"nodes": [], "memory": false, "reach": 0}'],
    ["network", "put", "%s/network.sh", "0644", "text"],
    ["run", "--step", "x", "--log", "%s/log/x.log", "--progress", "lines", "--", "true"],
    # As the unit calls it at boot: templates/network/nodes.service.j2.
    ["at-boot", "up", "x", "%s"],
    ["root-run", "--root", "%s/nodes/a.img", "--", "true"],
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb[:2]))
def test_no_verb_works_where_no_lab_ever_was(users: Path, verb: list[str]) -> None:
    before = tree(users)
    done = agent("x", users, *(word.replace("%s", str(users)) for word in verb))
    assert done.returncode == mark.REFUSED
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith(f"state_dir: {users} holds backup, dvs, log, nodes, ssh and no lab.json")
    assert "set state_dir to a folder of the lab's own" in line
    assert tree(users) == before


def test_the_mark_is_made_where_there_was_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a/state"
    words = ["run", "--step", "x", "--log", f"{folder}/log/packages.log"]
    done = agent("x", folder, "node-state", '{"nodes": [], "memory": false, "reach": 0}')
    assert (done.returncode, folder.exists()) == (0, False), done.stderr
    done = agent("x", folder, *words, "--progress", "lines", "--", "true")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "lab.json").read_text())
    assert (found["lab"], len(found["id"]), found["version"]) == ("x", 32, 1)
    assert (folder / "lab.json").stat().st_mode & 0o777 == 0o600
    assert agent("x", folder, *words, "--progress", "lines", "--", "true").returncode == 0
    assert json.loads((folder / "lab.json").read_text()) == found


def test_another_labs_folder_is_refused_and_one_inside_it(tmp_path: Path) -> None:
    assert mark.make("one", str(tmp_path / "state")) == ""
    before = tree(tmp_path)
    done = agent("two", tmp_path / "state", "keys", "make", "{}")
    assert done.returncode == mark.REFUSED
    assert f"{tmp_path}/state is lab one's (lab.json in it says so)" in done.stderr
    for inside in ("two", "nodes/two"):
        kind, text = mark.standing("two", str(tmp_path / "state" / inside))
        assert kind == "refused"
        assert f"lies in {tmp_path}/state, the state folder of lab one" in text
        assert mark.make("two", str(tmp_path / "state" / inside)) == text
    assert tree(tmp_path) == before


def test_a_link_to_another_labs_folder_is_that_folder(tmp_path: Path) -> None:
    mark.make("one", str(tmp_path / "state"))
    (tmp_path / "link").symlink_to("state")
    assert "is lab one's" in mark.standing("two", str(tmp_path / "link"))[1]
    assert "lies in" in mark.standing("two", str(tmp_path / "link/below"))[1]
    assert mark.standing("one", str(tmp_path / "link")) == ("own", "")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"lab": 3}', '{"id": "x"}'])
def test_what_says_no_lab_is_no_mark(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.json").write_text(text)
    kind, said = mark.standing("x", str(tmp_path))
    assert kind == "refused"
    assert "lab.json says no lab's name" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_mark_of_another_users_or_by_a_link_counts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    path.write_text('{"lab": "x"}')
    assert mark.standing("x", str(tmp_path))[0] == "own"
    os.chown(path, 12345, 12345)
    assert mark.standing("x", str(tmp_path))[0] == "refused"
    path.unlink()
    (tmp_path / "theirs").write_text('{"lab": "x"}')
    path.symlink_to("theirs")
    assert mark.standing("x", str(tmp_path))[0] == "refused"


MANY = """
import os, sys
from umlaan.agent import mark
for number in range(150):
    folder = f"{sys.argv[1]}/{number}"
    told = mark.refusal(["keys", "make"], ("x", folder))
    told = told or mark.refusal(["keys", "look"], ("x", folder))
    if told:
        sys.exit(told)
    os.makedirs(f"{folder}/log", exist_ok=True)
"""


def test_verbs_that_mark_a_folder_at_once_all_work_there(tmp_path: Path) -> None:
    words = [sys.executable, "-S", "-c", MANY, str(tmp_path)]
    asked = [
        subprocess.Popen(words, cwd=PACKAGE.parent, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert [one.communicate()[1] for one in asked] == [""] * 6


def test_an_order_for_a_cache_marks_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert mark.refusal(["spec", str(tmp_path / "cache/one.json"), ""], ("x", str(state))) == ""
    assert not state.exists()
    assert mark.refusal(["spec", str(state / "host-kernel/spec.json"), ""], ("x", str(state))) == ""
    assert mark.standing("x", str(state)) == ("own", "")


def test_a_mark_on_its_way_and_a_file_system_of_its_own_are_nothing(tmp_path: Path) -> None:
    (tmp_path / ".lab.json.0123").write_text("")
    Path(atomic.name_beside(str(tmp_path / ".lab.json.4567"))).write_text("")
    (tmp_path / "lost+found").mkdir()
    assert mark.standing("x", str(tmp_path)) == ("new", "")


def test_a_lab_of_an_earlier_umlaan_is_known_by_its_own_records(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "ssh").mkdir(parents=True)
    (state / "log").mkdir()
    (state / "ssh/id_ed25519.pub").write_text(KEY.format(lab="x"))
    assert mark.standing("x", str(state)) == ("old", "")
    assert mark.standing("y", str(state))[0] == "refused"
    assert "lies in" in mark.standing("y", str(state / "y"))[1]
    assert mark.make("y", str(state)) != ""
    assert mark.make("x", str(state)) == ""
    assert mark.standing("x", str(state)) == ("own", "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("network.sh", "#!/bin/sh\n# Made by umlaan for lab x: the lab's network again\nset -e\n"),
        ("nodes/node1/at-boot.json", '{"lab": "x", "dir": "%s/nodes/node1"}'),
        ("snapshots/node1/first.ext4", ""),
        ("host-kernel/spec.json", '{"state_dir": "%s"}'),
    ],
)
def test_each_record_of_an_earlier_lab_will_do(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("%s", str(tmp_path)))
    assert mark.standing("x", str(tmp_path)) == ("old", "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("network.sh", "#!/bin/sh\n# mine\n"),
        ("nodes/node1/at-boot.json", '{"lab": "x", "dir": "/elsewhere/nodes/node1"}'),
        ("nodes/node1/root.ext4", ""),
        ("snapshots/monday.tar", ""),
        ("host-kernel/config", ""),
        ("host-kernel/spec.json", '{"state_dir": "/elsewhere"}'),
        ("log/packages.log", ""),
        ("run/db.sock", ""),
    ],
)
def test_what_could_be_anybodys_is_no_labs(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert mark.standing("x", str(tmp_path))[0] == "refused"


OURS = (
    "nodes/node1/root.ext4",
    "nodes/node1/root.ext4.json",
    "nodes/node1/root.ext4.new",
    "nodes/node1/launch.json",
    "nodes/node1/launch.json.new-123",
    "nodes/node1/launch.lock",
    "nodes/node1/at-boot.json",
    "nodes/node1/console.log",
    "nodes/node1/console.log.1",
    "nodes/node1/uml/node1/pid",
    "kernels/0123456789ab/linux",
    "kernels/0123456789ab/spec.json",
    "modules/dvk/dvk.ko",
    "modules/dvk.json",
    "dvs/ioctl/dvk-lib/x.o",
    "dvs/ioctl.stamp.json",
    "dvs/dvs.tar.gz",
    "services/up",
    "services/dvs-proxy-node1/run",
    "ssh/id_ed25519",
    "ssh/id_ed25519.pub",
    "ssh/node1_host_ed25519_key",
    "ssh/known_hosts",
    "log/packages.log",
    "log/kernel-0123456789ab.log",
    "log/dvs-proxy-node1.log.1",
    "run/dvs/info",
    "backup/etc/hosts",
    "backup/etc/netns/x/hosts",
    "at-boot/agent-0123456789abcdef.zip",
    "network.sh",
)
THEIRS = (
    "nodes/disk.img",
    "nodes/node1/root.ext4.bak",
    "nodes/node1/my-disk.ext4",
    "nodes/node1/launch.lock.d/x",
    "kernels/mine/linux",
    "dvs/notes.txt",
    "ssh/config",
    "ssh/id_rsa",
    "log/app.log",
    "backup/monday.tar",
    "thesis.tex",
)
STAYS = ("snapshots/node1/first.ext4",)


def fill(state: Path, *names: str) -> None:
    for name in names:
        path = state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def spec_of(state: Path) -> dict[str, str]:
    return {"state_dir": str(state)}


def test_destroy_leaves_no_trace_where_all_is_the_labs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    mark.make("x", str(state))
    fill(state, *OURS)
    assert "nodes" in remove.present(spec_of(state))
    assert remove.remove(spec_of(state)) == 0
    assert not state.exists()
    assert remove.present(spec_of(state)) == []


def test_destroy_removes_what_it_can_name_and_says_what_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    mark.make("x", str(state))
    fill(state, *OURS, *THEIRS, *STAYS)
    outside = tmp_path / "outside"
    fill(outside, "file")
    (state / "dvs/ipc").symlink_to(outside)
    (state / "kernels/aaaaaaaaaaaa").symlink_to(outside)
    assert remove.remove(spec_of(state)) == 0
    left = {name for name, text in tree(state).items() if text}
    assert left == {*THEIRS, *STAYS, "lab.json"}
    assert tree(outside) == {"file": "file"}
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"left: {state}/")
    assert f"{state}/nodes/disk.img" in line
    assert "snapshots" not in line
    # Nothing is left to be done, and with its snapshots the folder is still this lab's.
    assert remove.present(spec_of(state)) == []
    assert mark.standing("x", str(state)) == ("own", "")


def test_the_mark_stays_as_long_as_a_users_file_does(tmp_path: Path) -> None:
    state = tmp_path / "state"
    mark.make("x", str(state))
    fill(state, *OURS, *THEIRS)
    assert remove.remove(spec_of(state)) == 0
    assert {name for name, text in tree(state).items() if text} == {*THEIRS, "lab.json"}
    # The next run, and destroy twice, find the lab's folder with nothing of the lab in it.
    assert remove.present(spec_of(state)) == []
    assert mark.standing("x", str(state)) == ("own", "")
    assert remove.remove(spec_of(state)) == 0


def test_the_mark_alone_goes_with_its_folder(tmp_path: Path) -> None:
    state = tmp_path / "state"
    mark.make("x", str(state))
    assert remove.present(spec_of(state)) == ["lab.json"]
    assert remove.remove(spec_of(state)) == 0
    assert not state.exists()


def test_a_users_key_in_the_labs_folder_is_never_the_labs(tmp_path: Path) -> None:
    folder = tmp_path / "ssh"
    folder.mkdir()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", folder / "id_ed25519"],
        check=True,
    )
    before = tree(folder)
    spec = {"dir": str(folder), "lab": "x", "nodes": {}}
    assert "id_ed25519" in keys.missing(spec)
    with pytest.raises(ValueError, match="id_ed25519 is not lab x's"):
        keys.make(spec)
    (folder / "id_ed25519.pub").unlink()
    with pytest.raises(ValueError, match="id_ed25519 is not lab x's"):
        keys.make(spec)
    assert (folder / "id_ed25519").read_text() == before["id_ed25519"]


def test_paths_that_links_and_mounts_make_one(tmp_path: Path) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    for folder in (state / "nodes", other):
        folder.mkdir(parents=True)
    (other / "in").symlink_to(state / "nodes")
    (other / "around").symlink_to(tmp_path)
    (other / "image").write_text("")
    os.link(other / "image", other / "same")
    found = preflight.clashes(
        [
            [f"{other}/in/mine.ext4", False],
            [f"{other}/around", True],
            [f"{other}/around", False],
            [f"{other}/image", True],
        ],
        (str(state),),
    )
    assert found == [
        [f"{other}/in/mine.ext4", str(state), "in"],
        [f"{other}/around", str(state), "around"],
    ]
    assert preflight.twice([f"{other}/image", f"{other}/none", f"{other}/same"]) == [
        [f"{other}/image", f"{other}/same"]
    ]


def test_what_starts_nodes_at_boot_is_told_its_lab_and_folder() -> None:
    host = build_lab([HostData("@local", False, {"lab": "x"})]).hosts[0]
    text = network_files.nodes_unit(wanted_of(host, (), []))
    assert " UMLAAN_LAB=x UMLAAN_STATE_DIR=/var/lib/umlaan/x\n" in text
