"""The runner behind ssh: one of two joined namespaces has an sshd, as a UML guest has one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.joined import ADDRESS, dvs_up, joined, measuring, namespace, rows, sh
from umlaan.measure.sides import LocalSide, SideError, SshSide
from umlaan.measure.transfers import clean

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: root only"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def network():
    with joined():
        yield


@pytest.fixture(scope="module")
def trees(network, tmp_path_factory):
    with dvs_up(tmp_path_factory.mktemp("dvs")) as found:
        yield found


@pytest.fixture
def bench(trees, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with measuring(trees, tmp_path) as made:
        yield made


@pytest.fixture
def sshd(network, tmp_path):
    """A real ssh server in node1's namespace, as a UML guest has one."""
    if not shutil.which("sshd"):
        pytest.fail("no sshd here: apt install openssh-server")
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    config = tmp_path / "sshd_config"
    config.write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\nStrictModes no\n"
        f"ListenAddress {ADDRESS[1]}:22\nPidFile none\nPermitRootLogin yes\nUsePAM no\n"
        "Subsystem sftp internal-sftp\n"
    )
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace(1), shutil.which("sshd"), "-D", "-e", "-f", str(config)],
        stderr=(tmp_path / "log").open("w"),
    )
    options = ["-F", "none", "-i", str(tmp_path / "user"), "-o", "StrictHostKeyChecking=no"]
    options += ["-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "LogLevel=ERROR"]
    deadline = time.monotonic() + 60
    while "listening" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield options
    process.terminate()
    process.wait(60)


def test_a_guest_behind_ssh_is_measured_as_any_other(bench, sshd, tmp_path):
    inside = ["ip", "netns", "exec", namespace(0), "ssh"]
    kept = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
    kept += ["-o", f"ControlPath={tmp_path}/c"]
    side = SshSide("node1", [*inside, *sshd, *kept, f"root@{ADDRESS[1]}"])
    guest = replace(bench.peers[1], side=side, ssh=(*sshd, *kept), target=f"root@{ADDRESS[1]}")
    local, bench.peers = bench.peers, {**bench.peers, 1: guest}
    try:
        tests = ("ping", "message", "m3ftp-put", "scp-get", "scp-put")
        found = rows(bench, tests=tests, repeats=1)
        assert [row.reason for row in found if row.reason] == []
        assert [row.test for row in found if row.test.startswith("scp")] == ["scp-get", "scp-put"]
        assert side.run("exit 7", 5).code == 7
        slow = side.run("sleep 30", 1)
        assert slow.timed_out
        assert slow.seconds < 8
    finally:
        clean(bench)
        bench.peers = local
        subprocess.run([*inside, *sshd, *kept, "-O", "exit", "x"], capture_output=True)


def test_a_lab_host_behind_ssh_carries_sides_as_this_one_does(sshd):
    to_host = ["ip", "netns", "exec", namespace(0), "ssh", *sshd, f"root@{ADDRESS[1]}"]
    side = LocalSide("lab host", namespace(1), via=to_host)
    assert side.run('echo "it\'s $((1 + 1))"; exit 3', 5).output == "it's 2\n"
    handle = side.start("sleep 1000", 60)
    done = side.finish(handle, 0)
    assert (done.code, done.timed_out) == (143, True)
    nested = SshSide("node1", ["ssh", *sshd, f"root@{ADDRESS[1]}"], via=to_host)
    assert nested.run('echo "it\'s $((1 + 1))"', 9).output == "it's 2\n"
    broken = LocalSide("lab host", via=[*to_host[:-1], "-p", "9", to_host[-1]])
    with pytest.raises(SideError, match="lab host: .*Connection refused"):
        broken.run("true", 5)


def test_a_guest_that_does_not_answer_is_a_failed_row(bench, sshd):
    inside = ["ip", "netns", "exec", namespace(0), "ssh"]
    side = SshSide("node1", [*inside, *sshd, "-p", "9", f"root@{ADDRESS[1]}"])
    with pytest.raises(SideError, match="node1: ssh: .*Connection refused"):
        side.run("true", 5)
    bench.peers = {**bench.peers, 1: replace(bench.peers[1], side=side)}
    first, _ = rows(bench, tests=("ping",))
    assert "Connection refused" in first.reason
