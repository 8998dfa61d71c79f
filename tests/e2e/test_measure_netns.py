"""The runner for real: two network namespaces joined by a veth, the sample tree, sshd in one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.sample_dvs import build, copy_tree
from umlaan.measure import ledger
from umlaan.measure.bench import Bench, Peer
from umlaan.measure.cases import Place, plan
from umlaan.measure.ledger import End, Kernel
from umlaan.measure.programs import Tree
from umlaan.measure.runner import measure_case
from umlaan.measure.sides import LocalSide, SideError, SshSide
from umlaan.measure.transfers import clean
from umlaan.model.dvs import Dvs, Programs
from umlaan.model.measure import Measure

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: root only"),
    pytest.mark.timeout(300),
]
SMALL = {
    "repeats": 3,
    "message_count": 20,
    "copy_sizes": ("1K", "64K"),
    "copy_count": 5,
    "buffers": ("64K",),
    "file_size": "3000001",
    "ping_count": 5,
    "timeout": 10,
    "start_timeout": 5,
}
PREFIX = f"umlm{os.getpid() % 100000}"
ADDRESS = {0: "10.217.0.1", 1: "10.217.0.2"}


def sh(*words: str, check: bool = True) -> str:
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def namespace(number: int) -> str:
    return f"{PREFIX}-{number}"


@pytest.fixture(scope="module")
def network():
    for number in (0, 1):
        sh("ip", "netns", "add", namespace(number))
    try:
        sh(
            *("ip", "-n", namespace(0), "link", "add", "mlink0", "type", "veth"),
            *("peer", "name", "mlink0", "netns", namespace(1)),
        )
        for number in (0, 1):
            ip = ("ip", "-n", namespace(number))
            sh(*ip, "addr", "add", f"{ADDRESS[number]}/24", "dev", "mlink0")
            for link in ("lo", "mlink0"):
                sh(*ip, "link", "set", link, "up")
        yield
    finally:
        for number in (0, 1):
            sh("ip", "netns", "del", namespace(number), check=False)


@pytest.fixture(scope="module")
def trees(network, tmp_path_factory):
    """Both nodes' trees, DVS and DC up; node0's programs enter its DC by nsenter."""
    base = tmp_path_factory.mktemp("dvs")
    built = copy_tree(base / "tree")
    build(built, "ioctl", "-O1")
    found = {}
    try:
        for number in (0, 1):
            dest, state = base / f"node{number}", base / f"state{number}"
            shutil.copytree(built, dest)
            environment = {**os.environ, **environ(str(state))}
            inside = ["ip", "netns", "exec", namespace(number)]
            for command in (f"./test_dvs_init -n {number}", f"./test_dc_init -d 0 -o {dest}"):
                subprocess.run(
                    [*inside, *command.split()], cwd=dest / "dvk-tests", env=environment, check=True
                )
            pid = int((dest / "DC0.sh").read_text().split("DC0=")[1].split()[0])
            found[number] = Tree(str(dest), str(state), dc_pid=pid, nsenter=number == 0)
        yield found
    finally:
        for number, tree in found.items():
            subprocess.run(
                ["ip", "netns", "exec", namespace(number), "./test_dc_init", "-e", "-d", "0"],
                cwd=f"{tree.dest}/dvk-tests",
                env={**os.environ, **environ(tree.state)},
                check=False,
            )


def environ(state: str) -> dict[str, str]:
    return {
        "DVS_STATE": state,
        "DVS_TIMEOUT": "5",
        **{f"DVS_NODE_ADDR_{number}": ADDRESS[number] for number in ADDRESS},
    }


@pytest.fixture
def bench(trees, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    peers = {}
    for number, tree in trees.items():
        end = End(
            node=number,
            name=f"node{number}",
            place="host",
            kernel=Kernel(release=os.uname().release),
        )
        side = LocalSide(f"node{number}", namespace(number))
        peers[number] = Peer(side, end, ADDRESS[number], tree)
    programs = Programs(environment=environ("{state}"))
    made = Bench(
        Measure(**SMALL), Dvs(programs=programs), peers, run="test", lab="netns", host="here"
    )
    yield made
    clean(made)
    for number, tree in trees.items():
        assert bound(tree) == [], f"node{number} has endpoints left bound"
    assert not list(tmp_path.glob("umlaan-measure.*"))
    for tree in trees.values():
        assert not list(Path(tree.dest).glob("dvk-proxies/test/m3ftp/umlaan-*"))


def bound(tree: Tree) -> list[str]:
    return Path(tree.state, "DC0/procs").read_text().splitlines()[1:]


def rows(bench: Bench, **changes):
    measure = bench.measure.model_copy(update=changes)
    bench.measure = measure
    cases = plan([Place(0, "host"), Place(1, "uml")], measure).cases
    return [measure_case(bench, case) for case in cases]


def test_every_test_in_both_directions_is_a_figure(bench, tmp_path):
    tests = ("ping", "message", "copy", "m3ftp-get", "m3ftp-put")
    found = rows(bench, tests=tests)
    assert [row.reason for row in found if row.reason] == []
    assert len(found) == 2 * 6
    for row in found:
        ledger.append(tmp_path / "ledger.jsonl", row)
        assert len(row.figures.values) == 3
        assert row.figures.median < (100 if row.unit == "ms/exchange" else 100_000)
    assert ledger.read(tmp_path / "ledger.jsonl").rows == found
    assert [len(row.samples) for row in found if row.test == "ping"] == [15, 15]
    assert {(r.server.name, r.client.name) for r in found} == {
        ("node0", "node1"),
        ("node1", "node0"),
    }


def test_a_server_that_dies_before_its_client_is_a_failed_row(bench, trees):
    programs = bench.measure.programs.model_copy(
        update={"message_server": "./loop_r-s_server none"}
    )
    first, second = rows(bench, tests=("message",), programs=programs)
    for row in (first, second):
        assert row.verdict == "failed"
        assert row.figures is None
        assert f"{row.server.name}: the server ended, exit code 2: usage: ./loop" in row.reason


def test_a_peer_that_dies_during_the_loop_is_a_failed_row(bench):
    programs = bench.measure.programs.model_copy(
        update={
            "message_client": "./loop_sr_client {children} {count} & c=$!; sleep 0.5; "
            "kill -9 $c; wait $c"
        }
    )
    # Enough exchanges that the client is still at it when it is killed.
    first, _ = rows(bench, tests=("message",), programs=programs, message_count=1_000_000)
    assert first.verdict == "failed"
    assert "node1: the client failed, exit code 137" in first.reason
    assert "node0's server" in first.reason


def test_a_client_that_hangs_is_ended_and_said(bench):
    programs = bench.measure.programs.model_copy(update={"copy_client": "sleep 60"})
    first, _ = rows(
        bench, tests=("copy",), copy_sizes=("1K",), programs=programs, timeout=5, repeats=1
    )
    assert first.reason.startswith("warm-up 1: node1: the client did not end in 5 s")


def test_a_short_file_is_a_failed_row(bench):
    programs = bench.measure.programs.model_copy(
        update={
            "m3ftp_get": "./m3ftp -g {dcid} {server_ep} {client_ep} {remote_file} {local_file} && "
            "truncate -s -1 {local_file}"
        }
    )
    first, _ = rows(bench, tests=("m3ftp-get",), programs=programs)
    assert first.reason == "warm-up 1: node1: short: 3000000 of 3000001 bytes arrived"


def test_a_file_of_another_content_is_a_failed_row(bench):
    programs = bench.measure.programs.model_copy(
        update={
            "m3ftp_put": "sh -c 'head -c 3000001 /dev/zero >{local_file}.x; ./m3ftp -p {dcid} "
            "{server_ep} {client_ep} {remote_file} {local_file}.x; rm {local_file}.x'"
        }
    )
    first, _ = rows(bench, tests=("m3ftp-put",), programs=programs)
    assert first.reason == "warm-up 1: node0: what arrived is not what was sent: hashes differ"


def test_a_buffer_that_is_not_in_force_is_a_failed_row(bench):
    programs = bench.measure.programs.model_copy(
        update={"environment": {}, "buffer": "echo 131072"}
    )
    first, _ = rows(bench, tests=("m3ftp-get",), programs=programs)
    assert "a buffer of 65536 bytes was asked for, 131072 is in force" in first.reason


def test_endpoints_that_an_aborted_test_left_bound_are_freed(bench, trees):
    server = bench.peers[0].side.start(
        f"cd {trees[0].dest}/dvk-proxies/test/m3ftp && DVS_STATE={trees[0].state} "
        f"exec nsenter -p -t {trees[0].dc_pid} -- ./m3ftpd 0 20",
        60,
    )
    side = bench.peers[0].side
    assert side.wait_until(server, f"grep -q m3ftpd {trees[0].state}/DC0/procs", 5).code == 0
    os.killpg(server.group, 9)
    time.sleep(0.3)
    assert bound(trees[0])
    side.finish(server, 0)
    found = rows(bench, tests=("m3ftp-get",))
    assert [row.reason for row in found] == [None, None]


def test_an_endpoint_that_a_live_program_holds_is_not_taken(bench, trees):
    side = bench.peers[0].side
    server = side.start(
        f"cd {trees[0].dest}/dvk-proxies/test/m3ftp && DVS_STATE={trees[0].state} "
        f"exec nsenter -p -t {trees[0].dc_pid} -- ./m3ftpd 0 20",
        60,
    )
    try:
        assert side.wait_until(server, f"grep -q m3ftpd {trees[0].state}/DC0/procs", 5).code == 0
        first, second = rows(bench, tests=("m3ftp-get",))
        assert "endpoint 20 is bound by a program that still runs" in first.reason
        assert side.run(f"kill -0 {server.group}", 5).code == 0
    finally:
        side.finish(server, 0)


def test_an_unreachable_address_is_a_failed_ping(bench):
    bench.peers = {**bench.peers, 0: replace(bench.peers[0], address="10.217.0.77")}
    first, _ = rows(bench, tests=("ping",))
    assert first.reason == "warm-up 1: lost: 0 of 5 pings answered"


def test_no_room_is_said_before_anything_is_sent(bench):
    first, *_ = rows(bench, tests=("m3ftp-get",), file_size="900T")
    assert "MB free" in first.reason
    assert "measure.file_size" in first.reason


def test_a_program_that_is_stopped_leaves_no_process(bench):
    side = bench.peers[1].side
    handle = side.start("sleep 1000 & trap '' TERM; sleep 1001", 60)
    assert side.wait_until(handle, f"pgrep -g {handle.group} -f 1001", 5).code == 0
    side.finish(handle, 0)
    members = sh("ps", "-o", "stat=", "-g", str(handle.group), check=False).split()
    assert [state for state in members if state[0] != "Z"] == []


def test_a_program_outlives_its_runner_only_for_its_lifetime(bench):
    side = bench.peers[1].side
    handle = side.start("sleep 1000", 1)
    done = side.finish(handle, 10)
    assert (done.code, done.timed_out) == (137, False)


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
    deadline = time.monotonic() + 10
    while "listening" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield options
    process.terminate()
    process.wait(10)


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
