"""Bad data, typed as a user would: one clear message, no traceback, exit code not 0, no change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.lab import REPO, Lab

CASES = [
    ("netwrk", "1", "--data: netwrk: unknown key; allowed: "),
    ("network.brigde", "br1", "--data: network.brigde: unknown key; allowed: address"),
    ("network.bridge", "a b", "network.bridge: String should match pattern"),
    ("network.address", "192.168.1.300/24", "network.address:"),
    ("network.address", "192.168.1.10/31", "a network of /30 or larger is needed"),
    ("network.mtu", "12", "network.mtu: Input should be greater than or equal to 576"),
    ("network.node_base", "255", "outside 192.168.1.0/24"),
    ("network.namespace", "NOT A NAME", "network.namespace:"),
    ("kernel", "linux-source-6.1", "must be package:NAME[@SUITE]"),
    ("kernel.sorce", "x", "kernel.sorce: unknown key; allowed: arch, base"),
    ("kernel.base", "tiny", "must be allnoconfig, defconfig, tinyconfig or the path"),
    ("kernel.subarch", "arm", "kernel.subarch: Input should be 'x86_64' or 'i386'"),
    ("kernel.overlays", '["ipc"]', "must be an absolute path"),
    ("kernel.options", '["HZ"]', "must be a dictionary"),
    ("node.mem", "lots", "node.mem: must be a number with K, M, G or T after it"),
    ("node.transport", "slirp", "node.transport: Input should be 'auto', 'tuntap' or 'vector'"),
    ("node.extra_args", '["a b"]', "one argument each, without blanks"),
    ("node.dcid", "77", "node.dcid: Input should be less than or equal to 31"),
    ("node.address", "10.0.0.1", "outside 192.168.1.0/24"),
    ("node.boot_timeout", "0", "node.boot_timeout: Input should be greater than"),
    ("root", "sdb6", "must be an absolute path"),
    ("root.made.suite", "Book Worm", "root.made.suite: String should match"),
    ("dvs.bits", "16", "dvs.bits: Input should be 32 or 64"),
    ("reboot", "always", "reboot: Input should be 'never' or 'when_needed'"),
    ("lab_host", "nowhere", "lab_host: 'nowhere' is no lab host; allowed: @local"),
    ("state_dir", "/var/tmp/e2e bad", "state_dir: must be made of letters, digits and /"),
    ("state_dir", "/var/tmp/e2e-bad;touch CANARY", "state_dir: must be made of letters"),
    ("state_dir", "//etc", "state_dir: must be a folder of the lab's own"),
    ("state_dir", "/var/tmp/" + "é" * 45, "of 107 bytes); choose a shorter state_dir"),
    ("node.mem", "0", "node.mem: must be 16M or more"),
    ("node.hostfs", "/", "node.hostfs: / holds state_dir"),
    ("dvs.cluster", "$(touch CANARY)", "dvs.cluster: String should match pattern"),
    ("node_count", "2", "set node_count in inventory.py"),
]


@pytest.fixture
def bad_lab(tmp_path: Path) -> Lab:
    return Lab(name="e2e-bad", folder=tmp_path)


@pytest.mark.parametrize(("key", "value", "message"), CASES)
def test_told_and_nothing_changed(bad_lab: Lab, key: str, value: str, message: str) -> None:
    bad_lab.data[key] = value
    result = bad_lab.deploy()
    assert message in result.output, result.output
    assert "Traceback" not in result.output, result.output
    assert result.code != 0
    assert not bad_lab.state_dir.exists()
    assert not (REPO / "CANARY").exists()


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def test_a_folder_in_which_no_lab_ever_was_is_left_as_it_is(tmp_path: Path) -> None:
    lab = Lab(name="e2e-bad", folder=tmp_path)
    for name in ("backup/monday.tar", "ssh/id_ed25519", "dvs/notes", "log/app.log", "nodes/a.img"):
        path = lab.state_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    before = tree(lab.state_dir)
    for result in (lab.destroy(), lab.deploy(), lab.dry(), lab.umlaan("status")):
        assert result.code != 0
        assert "Traceback" not in result.output, result.output
        assert f"state_dir: {lab.state_dir} holds backup, dvs, log, nodes, ssh and no lab.json" in (
            " ".join(result.output.split())
        )
        assert tree(lab.state_dir) == before


def test_a_source_that_is_no_tarball_is_one_message(tmp_path: Path) -> None:
    lab = Lab(name="e2e-bad", folder=tmp_path)
    lab.nodes = []
    lab.data["dvs.source"] = str(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo")
    result = lab.deploy()
    assert f"dvs.source: {tmp_path}/fifo is a FIFO, which is no directory or file" in result.output
    assert "Traceback" not in result.output, result.output
    assert result.code != 0
    lab.destroy()


def test_a_name_with_another_digit_is_told(tmp_path: Path) -> None:
    result = Lab(name="e2e-bad", folder=tmp_path, nodes=["@uml/node²"]).deploy()
    assert "@uml/node²: a UML node is named @uml/nodeN" in result.output
    assert "Traceback" not in result.output, result.output
    assert result.code != 0


def test_a_fault_in_group_data_is_told_with_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    for name in ("inventory.py", "deploy.py"):
        shutil.copy(REPO / name, folder / name)
    for name in ("group_data", "tasks"):
        shutil.copytree(REPO / name, folder / name)
    data = folder / "group_data" / "all.py"
    data.write_text(data.read_text() + '\nnetwork = {"bridge": "br 0"}\n')
    line = len(data.read_text().splitlines())
    lab = Lab(name="e2e-bad", folder=tmp_path)
    result = lab.pyinfra_in(folder, "inventory.py", "deploy.py")
    assert f"group_data/all.py:{line}: network.bridge: String should match" in result.output
    assert "Traceback" not in result.output
    assert result.code != 0
