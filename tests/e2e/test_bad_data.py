"""Bad data, typed as a user would: one clear message, no traceback, exit code not 0, no change."""

from __future__ import annotations

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
