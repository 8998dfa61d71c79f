"""The sample tree's proxies: the tables on both sides while links come, break and come back."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.sample_dvs import LOOPS, PROXIES, TESTS, Node, build, copy_tree, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a DC is a PID namespace: needs root")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy_tree(tmp_path_factory.mktemp("proxies") / "dvs")
    build(made, "ipc")
    return made


@pytest.fixture
def nodes(tree: Path, tmp_path: Path) -> Iterator[list[Node]]:
    made = [Node(n, tree, tmp_path / f"n{n}", os.getpid() % 250 + 1) for n in range(3)]
    try:
        for node in made:
            node.up()
        yield made
    finally:
        for node in made:
            node.down()


def proxy(node: Node, remote: Node) -> subprocess.Popen[str]:
    return node.start(PROXIES, f"./tcp_proxy -bBZ -n node{remote.number} -i {remote.number}")


def flags(node: Node, remote: Node) -> tuple[str, str]:
    """Of the other node and of its proxy, as this node has them; "-" where there is no row."""
    rows = node.row("nodes", remote.number), node.row("proxies/info", remote.number)
    return (rows[0][1] if rows[0] else "-", rows[1][1] if rows[1] else "-")


def joined(one: Node, other: Node) -> bool:
    return flags(one, other) == flags(other, one) == ("E", "7")


def test_two_nodes_are_joined_and_the_counters_move(nodes: list[Node]) -> None:
    node0, node1, _ = nodes
    for node in nodes:
        # Nobody is silent here: on a busy machine a beat may come late.
        node.environment["DVS_DEADLINE_MS"] = "20000"
    assert "-316" in node0.run(TESTS, "./test_add_node 0 1", 6).stderr
    proxies = [proxy(node0, node1), proxy(node1, node0)]
    wait_for(lambda: joined(node0, node1))
    row = node0.row("proxies/info", 1)
    assert row is not None
    assert row[4:] == ["node1", "-" * 30 + "X-"]
    for pid in row[2:4]:
        assert Path(f"/proc/{pid}/cmdline").read_text().split("\0")[-3:-1] == ["-i", "1"]
    node0.run(TESTS, "./test_add_node 0 1")
    before = node0.row("nodes", 1)
    assert before is not None
    assert (before[2], before[5], before[6]) == ("1", "-" * 31 + "X", "node1")
    assert "dc_nodes=3" in node0.table("DC0/info")

    def moved() -> bool:
        now = node0.row("nodes", 1)
        return now is not None and all(int(now[i]) > int(before[i]) + 2 for i in (3, 4))

    wait_for(moved)
    serving = node0.start(LOOPS, "./loop_r-s_server 1 10")
    wait_for(lambda: 2 in node0.bound())
    refused = node1.run(LOOPS, "./loop_sr_client 1 10", 6, DVS_STRICT="1")
    assert "-316" in refused.stderr
    node1.run(TESTS, "./test_add_node 0 0")
    node1.run(LOOPS, "./loop_sr_client 1 10", DVS_STRICT="1")
    assert serving.wait(60) == 0
    assert "has a proxy already" in node0.run(PROXIES, "./tcp_proxy -n node1 -i 1", 1).stderr
    for process in proxies:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert flags(node0, node1) == ("2", "-")
    assert len(node0.table("proxies/info")) == 1


def test_a_killed_proxy_is_gone_on_both_sides_until_it_is_started_again(
    nodes: list[Node],
) -> None:
    node0, node1, _ = nodes
    proxy(node0, node1)
    killed = proxy(node1, node0)
    wait_for(lambda: joined(node0, node1))
    row = node1.row("proxies/info", 0)
    assert row is not None
    killed.kill()
    wait_for(lambda: flags(node0, node1) == ("2", "1"))
    wait_for(lambda: flags(node1, node0) == ("-", "-"))
    for pid in row[2:4]:
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}/exe").exists())
    proxy(node1, node0)
    wait_for(lambda: joined(node0, node1))


def test_a_sender_that_dies_is_started_again(nodes: list[Node]) -> None:
    node0, node1, _ = nodes
    proxy(node0, node1)
    proxy(node1, node0)
    wait_for(lambda: joined(node0, node1))
    row = node0.row("proxies/info", 1)
    assert row is not None
    os.kill(int(row[2]), signal.SIGKILL)
    wait_for(lambda: flags(node1, node0) == ("6", "3"))
    wait_for(lambda: joined(node0, node1))
    again = node0.row("proxies/info", 1)
    assert again is not None
    assert (again[2] != row[2], again[3]) == (True, row[3])


def test_a_silent_side_makes_the_tables_disagree(nodes: list[Node]) -> None:
    node0, node1, _ = nodes
    proxy(node0, node1)
    proxy(node1, node0)
    wait_for(lambda: joined(node0, node1))
    row = node1.row("proxies/info", 0)
    assert row is not None
    for pid in row[2:4]:
        os.kill(int(pid), signal.SIGSTOP)
    wait_for(lambda: flags(node0, node1) == ("2", "1"))
    assert flags(node1, node0) == ("E", "7")
    for pid in row[2:4]:
        os.kill(int(pid), signal.SIGCONT)
    wait_for(lambda: joined(node0, node1))


def test_three_nodes_have_a_proxy_for_each_pair(nodes: list[Node]) -> None:
    pairs = [(one, other) for one in nodes for other in nodes if one is not other]
    for one, other in pairs:
        proxy(one, other)
    for one, other in pairs:
        wait_for(lambda one=one, other=other: joined(one, other))
    assert [len(node.table("nodes")) for node in nodes] == [4, 4, 4]
    assert [len(node.table("proxies/info")) for node in nodes] == [3, 3, 3]


def test_a_cut_link_is_seen_on_both_sides_and_healed(tree: Path, tmp_path: Path) -> None:
    """Two network namespaces and a cable between them; the cable is pulled, not the program."""
    names = [f"umlaan-t{os.getpid()}-{n}" for n in range(2)]
    made: list[Node] = []

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip(*f"-n {names[0]} link add c0 type veth peer name c0 netns {names[1]}".split())
        for n, name in enumerate(names):
            node = Node(n, tree, tmp_path / f"n{n}", 0, ("ip", "netns", "exec", name))
            for other in range(2):
                node.environment[f"DVS_NODE_ADDR_{other}"] = f"198.51.100.{other + 1}"
            ip("-n", name, "address", "add", f"198.51.100.{n + 1}/24", "dev", "c0")
            ip("-n", name, "link", "set", "c0", "up")
            made.append(node)
            node.up()
        node0, node1 = made
        proxy(node0, node1)
        proxy(node1, node0)
        wait_for(lambda: joined(node0, node1))
        ip("-n", names[1], "link", "set", "c0", "down")
        wait_for(lambda: (flags(node0, node1), flags(node1, node0)) == (("2", "1"),) * 2)
        ip("-n", names[1], "link", "set", "c0", "up")
        wait_for(lambda: joined(node0, node1), 10)
    finally:
        for node in made:
            node.down()
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def test_it_listens_on_the_address_that_it_is_given_and_no_other(nodes: list[Node]) -> None:
    node = nodes[0]
    for number in range(4):
        del node.environment[f"DVS_NODE_ADDR_{number}"]
    node.environment["DVS_ADDRESS"] = node.address(0)
    port = 3000 + os.getpid() % 30000
    process = node.start(PROXIES, "./tcp_proxy -n node9 -i 1", DVS_PROXY_PORT=str(port - 1))

    def answers(address: str) -> bool:
        with socket.socket() as link:
            return link.connect_ex((address, port)) == 0

    wait_for(lambda: process.poll() is not None or answers(node.address(0)))
    assert answers(node.address(0))
    assert not answers("127.0.0.1") and not answers(node.address(3))
    bad = node.run(PROXIES, "./tcp_proxy -n node9 -i 2", None, DVS_ADDRESS="nowhere")
    assert bad.returncode not in (0, None) and "cannot listen on port" in bad.stderr


def test_bad_arguments_get_one_message(nodes: list[Node]) -> None:
    node = nodes[0]
    cases = {
        (PROXIES, "./tcp_proxy -n node0 -i 0"): (2, "is this node itself"),
        (PROXIES, "./tcp_proxy -n node1 -i 32"): (2, "from 0 to 31"),
        (PROXIES, "./tcp_proxy -i 1"): (2, "usage"),
        (TESTS, "./test_dvs_init -n 40"): (2, "from 0 to 31"),
        (TESTS, "./test_dvs_init -n 0"): (1, "in use: DC0 runs"),
        (TESTS, "./test_dvs_init -e"): (1, "in use: DC0 runs"),
        (TESTS, "./test_dc_init -d 99"): (2, "from 0 to 31"),
        (TESTS, "./test_dc_init -e -d 3"): (7, "DC3 is not running"),
        (TESTS, "./test_rmtbind 0 20 0 m"): (2, "is this node"),
        (TESTS, "./test_rmtbind 1 20 1 m"): (7, "DC1 is not running"),
        (TESTS, "./test_unbind 0 20"): (5, "-310"),
        (LOOPS, "./loop_copy_server 1 0 64"): (2, "loops"),
        (LOOPS, "./loop_copy_server 1 1 99999999"): (2, "maxbuf"),
    }
    for (folder, command), (code, text) in cases.items():
        assert re.search(text, node.run(folder, command, code).stderr), command
