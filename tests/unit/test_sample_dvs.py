"""The sample tree: built as users build it, and its programs against each other on loopback."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.relay import Relay
from tests.unit.sample_dvs import (
    FOLDERS,
    LIBRARY,
    LOOPS,
    M3FTP,
    TESTS,
    Node,
    build,
    copy_tree,
    wait_for,
)
from umlaan.agent import proc
from umlaan.measure import outputs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a DC is a PID namespace: needs root")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for variant in ("ioctl", "ipc"):
        made[variant] = copy_tree(tmp_path_factory.mktemp(variant) / "dvs")
        build(made[variant], variant)
    return made


@pytest.fixture
def pair(trees: dict[str, Path], tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Host and guest: node 0 with the IOCTL variant, node 1 with the IPC one."""
    net = os.getpid() % 250 + 1
    nodes = (
        Node(0, trees["ioctl"], tmp_path / "n0", net),
        Node(1, trees["ipc"], tmp_path / "n1", net),
    )
    try:
        for node in nodes:
            node.up()
        yield nodes
    finally:
        for node in nodes:
            node.down()
    assert [path for node in nodes for path in (node.state,) if path.exists()] == []


def test_the_same_source_gives_the_same_bytes_anywhere(trees: dict[str, Path]) -> None:
    """One make of dvk-lib gives both libraries, so the two trees have built both."""
    libraries = [trees[variant] / "dvk-lib" for variant in trees]
    for name in ("stub_dvkcall.o", "libdvkipc.so"):
        one, other = ((library / name).read_bytes() for library in libraries)
        assert one == other
    for variant, tree in trees.items():
        linked = subprocess.run(
            ["readelf", "-d", "m3ftp"], cwd=tree / M3FTP, capture_output=True, text=True, check=True
        )
        assert f"[../../../dvk-lib/{LIBRARY[variant]}]" in linked.stdout


def test_clean_leaves_the_sources(trees: dict[str, Path], tmp_path: Path) -> None:
    tree = shutil.copytree(trees["ioctl"], tmp_path / "dvs")
    for folder in FOLDERS:
        subprocess.run(["make", "-s", "-C", str(tree / folder), "clean"], check=True)
    left = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file()}
    fresh = copy_tree(tmp_path / "fresh")
    assert left == {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}


def test_the_tables_have_the_procedures_shape(pair: tuple[Node, Node]) -> None:
    node0, node1 = pair
    info = dict(line.split("=", 1) for line in node0.table("info"))
    assert (info["name"], info["nodeid"], info["dbglvl"]) == ("TEST_CLUSTER", "0", "FFFFFF")
    assert (info["nr_dcs"], info["nr_nodes"], info["flags"]) == ("32", "32", "2")
    assert "flags=1" in node1.table("info")
    assert node0.table("nodes") == [
        "ID Flags Proxies -pxsent- -pxrcvd- 10987654321098765432109876543210 Name",
        " 0     6      -1        0        0 -------------------------------X node0           ",
    ]
    assert node0.table("proxies/info") == [
        "Proxies Flags Sender Receiver --Proxies_Name- 10987654321098765432109876543210 "
    ]
    node0.run(TESTS, "./test_rmtbind 0 21 1 m3ftp_client")
    assert node0.table("DC0/procs")[1] == (
        " 0  21    21    -1/-1     1 1000    0 27342 27342 27342 27342 m3ftp_client   "
    )


def test_a_dc_is_a_pid_namespace_with_an_init(pair: tuple[Node, Node], tmp_path: Path) -> None:
    node = pair[0]
    script = node.state / "DC0.sh"
    assert script.read_text() == (node.tree / TESTS / "DC0.sh").read_text()
    sourced = subprocess.run(["sh", "-c", f". {script}; echo $DC0"], capture_output=True, text=True)
    init = int(sourced.stdout)
    assert f"dc_pid={init}" in node.table("DC0/info")
    mine, its = (Path(f"/proc/{pid}/ns") for pid in ("self", init))
    assert (its / "pid").readlink() != (mine / "pid").readlink()
    assert (its / "mnt").readlink() == (mine / "mnt").readlink()
    # An orphan inside is reaped: no zombie stays.
    orphan = "sh -c '(sleep 0.1 & echo $! >&2)'"
    subprocess.run(f"nsenter -p -t {init} {orphan}", shell=True, check=True, capture_output=True)
    children = Path(f"/proc/{init}/task/{init}/children")
    wait_for(lambda: not children.read_text().split())
    assert "already running" in node.run(TESTS, "./test_dc_init -d 0", 1).stderr
    inside = subprocess.Popen(["nsenter", "-p", "-t", str(init), "sleep", "60"])
    wait_for(lambda: Path(f"/proc/{inside.pid}/task/{inside.pid}/children").read_text().split())
    node.run(TESTS, "./test_dc_init -d 0 -e")
    assert inside.wait(60) != 0
    assert not Path(f"/proc/{init}/exe").exists()
    assert not script.exists()
    assert not (node.state / "DC0").exists()
    assert "-318" in node.run(TESTS, "./test_unbind 0 1", 7, DVS_STATE=str(tmp_path)).stderr


def test_messages_and_blocks_in_both_directions(pair: tuple[Node, Node]) -> None:
    for server, client in (pair, pair[::-1]):
        nodes = {"DVS_RMTNODE": str(client.number)}, {"DVS_RMTNODE": str(server.number)}
        serving = server.start(LOOPS, "./loop_r-s_server 2 50", **nodes[0])
        got = client.run(LOOPS, "./loop_sr_client 2 50", **nodes[1])
        served = serving.communicate(timeout=60)[0]
        assert serving.returncode == 0
        assert outputs.message_loop(served, 100).count == 100
        assert re.search(r"^exchange_ms: n=100 min=.* median=.* p99=.* max=", got.stdout, re.M)
        assert "checked_bytes = 6400 wrong_bytes = 0" in got.stdout
        serving = server.start(LOOPS, f"./loop_copy_server 2 5 65537 0 {client.number}")
        got = client.run(LOOPS, f"./loop_copy_client 2 0 {server.number}")
        served = serving.communicate(timeout=60)[0]
        assert outputs.copy_loop(served, 65537, 5, 2).bytes == 655370
        assert "checked_bytes = 655370 wrong_bytes = 0" in got.stdout
        assert server.bound() == client.bound() == {}


def test_what_the_procedure_types_runs_inside_the_dc(pair: tuple[Node, Node]) -> None:
    node0, node1 = pair
    init = (node0.state / "DC0.sh").read_text().split()[0].removeprefix("DC0=")
    serving = node0.start(LOOPS, f"nsenter -p -t {init} ./loop_copy_server 1 10 65536")
    wait_for(lambda: 2 in node0.bound())
    outer, inner = node0.table("DC0/procs")[1].split()[3].split("/")
    status = Path(f"/proc/{outer}/status").read_text()
    assert re.search(rf"^NSpid:\s+{outer}\s+{inner}$", status, re.M)
    node1.run(LOOPS, "./loop_copy_client 1")
    assert serving.wait(60) == 0


@pytest.mark.parametrize("position", [0, 70_000])
def test_one_wrong_byte_is_seen(pair: tuple[Node, Node], position: int) -> None:
    node0, node1 = pair
    serving = node0.start(LOOPS, "./loop_copy_server 1 3 100000")
    wait_for(lambda: 2 in node0.bound())
    # The child's stream: its hello's answer (32 + 36 bytes), then header and block each.
    at = 68 + (32 + 100_000) + 32 + position
    with Relay(node0.address(0), node0.address(3), (12035, 12037), flip=(12037, at)):
        client = node1.run(LOOPS, "./loop_copy_client 1", 3, DVS_NODE_ADDR_0=node0.address(3))
    assert f"wrong byte: exchange 1, position {position} of 100000" in client.stderr
    assert "Throuhput" not in client.stdout
    assert serving.wait(60) == 3
    assert "Throuhput" not in serving.communicate()[0]


def test_an_aborted_test_leaves_its_endpoints(pair: tuple[Node, Node]) -> None:
    node0, node1 = pair
    aborted = node0.start(LOOPS, "./loop_r-s_server 1 10")
    wait_for(lambda: set(node0.bound()) == {0, 1, 2, 3})
    assert "-320" in node0.run(TESTS, "./test_unbind 0 0", 5).stderr
    aborted.kill()
    aborted.wait()
    said = node0.run(LOOPS, "./loop_r-s_server 1 10", 5).stderr
    assert "BIND ERROR ret=-337" in said
    assert "stale; test_unbind 0 0 frees it" in said
    for endpoint in range(4):
        node0.run(TESTS, f"./test_unbind 0 {endpoint}")
    serving = node0.start(LOOPS, "./loop_r-s_server 1 10")
    node1.run(LOOPS, "./loop_sr_client 1 10")
    assert serving.wait(60) == 0


def exchanging(client: subprocess.Popen[str]) -> bool:
    """Whether one of a client's children has waited for many an answer by now."""
    found = []
    for pid in proc.children(client.pid):
        status = Path(f"/proc/{pid}/status").read_text()
        found += re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
    return any(int(count) > 100 for count in found)


def test_a_peer_that_dies_is_a_failure_and_no_figure(pair: tuple[Node, Node]) -> None:
    node0, node1 = pair
    serving = node0.start(LOOPS, "./loop_r-s_server 1 1000000")
    client = node1.start(LOOPS, "./loop_sr_client 1 1000000")
    wait_for(lambda: {0, 1, 2, 3} <= set(node1.bound()) and exchanging(client))
    client.kill()
    out, err = serving.communicate(timeout=60)
    assert serving.returncode == 6
    assert "the other side died" in err
    assert "t_total" not in out
    assert (
        "connection refused"
        in node0.run(LOOPS, "./loop_sr_client 1 9 0 1", 6, DVS_CONNECT="0").stderr
    )
    assert "-316" in node0.run(LOOPS, "./loop_sr_client 1 9 0 1", 6, DVS_STRICT="1").stderr
    assert "name the other node" in node0.run(LOOPS, "./loop_sr_client 1 10", 2).stderr


@pytest.fixture
def served(pair: tuple[Node, Node]) -> Iterator[tuple[Node, Node, Path, Path]]:
    """m3ftpd on node 0, endpoints bound as in the procedure; both folders, files of before gone."""
    node0, node1 = pair
    before = [(node.tree / M3FTP, set((node.tree / M3FTP).iterdir())) for node in pair]
    node0.run(TESTS, "./test_rmtbind 0 21 1 m3ftp_client")
    node1.run(TESTS, "./test_rmtbind 0 20 0 m3ftp_server")
    daemon = node0.start(M3FTP, "./m3ftpd 0 20")
    wait_for(lambda: 20 in node0.bound())
    yield node0, node1, before[0][0], before[1][0]
    assert daemon.poll() is None
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0
    assert node0.bound() == {21: "m3ftp_client"}
    for folder, names in before:
        for path in set(folder.iterdir()) - names:
            path.unlink()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_m3ftp_gets_and_puts(served: tuple[Node, Node, Path, Path]) -> None:
    _, node1, there, here = served
    size = 3_000_003
    (there / "server.txt").write_bytes(os.urandom(size))
    node1.run(M3FTP, "./m3ftp -g 0 20 21 server.txt client.txt")
    got = node1.run(M3FTP, "./m3ftp -p -b 1M 0 20 21 server2.txt client.txt").stdout
    assert "buffer = 1048576" in got
    assert (
        digest(there / "server.txt") == digest(here / "client.txt") == digest(there / "server2.txt")
    )
    log = (there / "m3ftpd.log").read_text()
    sessions = re.split(r"(?m)^(?=t_start)", log)[1:]
    assert [outputs.m3ftpd_log(text, size).bytes for text in sessions] == [size, size]
    assert "FTP_GET [server.txt]" in sessions[0]
    assert "FTP_PUT [server2.txt]" in sessions[1]
    (here / "empty").write_bytes(b"")
    node1.run(M3FTP, "./m3ftp -p 0 20 21 empty empty")
    assert (there / "empty").stat().st_size == 0


def test_m3ftpd_serves_sessions_side_by_side(served: tuple[Node, Node, Path, Path]) -> None:
    node0, node1, there, _ = served
    (there / "big").write_bytes(os.urandom(4_000_000))
    for endpoint in (22, 23, 24):
        node0.run(TESTS, f"./test_rmtbind 0 {endpoint} 1 more")
    clients = [
        node1.start(M3FTP, f"./m3ftp -g -b 4096 0 20 {endpoint} big got{endpoint}")
        for endpoint in (21, 22, 23, 24)
    ]
    assert [client.wait(60) for client in clients] == [0] * 4
    for endpoint in (22, 23, 24):
        node0.run(TESTS, f"./test_unbind 0 {endpoint}")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "link", "sub/../server.txt", "sub/", ".", "nope", "sub"]
)
def test_m3ftpd_keeps_to_its_folder(served: tuple[Node, Node, Path, Path], name: str) -> None:
    _, node1, there, here = served
    (there / "link").symlink_to("/etc/passwd")
    subfolder = there / "sub"
    subfolder.mkdir()
    try:
        node1.run(M3FTP, f"./m3ftp -g 0 20 21 {name} stolen", 1)
        assert not (here / "stolen").exists()
        if name not in ("nope",):
            (here / "plain").write_text("x")
            node1.run(M3FTP, f"./m3ftp -p 0 20 21 {name} plain", 1)
        assert not (there.parent / "x").exists()
    finally:
        subfolder.rmdir()


def test_a_short_or_corrupt_transfer_leaves_no_file(
    served: tuple[Node, Node, Path, Path],
) -> None:
    node0, node1, there, here = served
    (there / "server.txt").write_bytes(os.urandom(500_000))
    through = {"DVS_NODE_ADDR_0": node0.address(3)}
    with Relay(node0.address(0), node0.address(3), (12055,), cut=(12055, 300_000)):
        got = node1.run(M3FTP, "./m3ftp -g 0 20 21 server.txt client.txt", 4, **through)
    assert re.search(r"short transfer: 262144 of 500000 bytes", got.stderr)
    with Relay(node0.address(0), node0.address(3), (12055,), flip=(12055, 200_000)):
        got = node1.run(M3FTP, "./m3ftp -g 0 20 21 server.txt client.txt", 3, **through)
    assert "wrong bytes in buffer" in got.stderr
    assert "Throuhput" not in got.stdout
    assert [path for path in here.iterdir() if "client" in path.name] == []
    wait_for(lambda: "FAILED" in (there / "m3ftpd.log").read_text())
    assert "Throuhput" not in (there / "m3ftpd.log").read_text()


def test_m3ftp_wants_the_endpoints_bound(served: tuple[Node, Node, Path, Path]) -> None:
    _, node1, _, _ = served
    assert "-310" in node1.run(M3FTP, "./m3ftp -g 0 30 21 a b", 5).stderr
    assert "node 0 refuses" in node1.run(M3FTP, "./m3ftp -g 0 20 25 a b", 5).stderr
    assert "buffer" in node1.run(M3FTP, "./m3ftp -g -b 7 0 20 21 a b", 2).stderr
