"""The lab's network for real, in namespaces of the test's own: up, drifts, refusals, away."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scratch import LAB, NAMESPACE, REPOSITORY, USER, Scratch, in_namespace, sh
from umlaan.model.lab import HostData, build_lab
from umlaan.plan import labuser
from umlaan.plan.network_state import Found, Wanted, wanted_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")


def wanted(lab: Scratch) -> Wanted:
    rows = [HostData("@local", False, lab.data)]
    rows += [HostData(f"@uml/node{n}", True, lab.data) for n in lab.nodes]
    model = build_lab(rows)
    return wanted_of(model.hosts[0], model.nodes, model.peers())


def make_user(lab: Scratch) -> str:
    """The command that makes the user whose the taps are."""
    found = Found(namespace="missing")
    (change,) = labuser.changes(wanted(lab), found)
    return change.shell("umlaan-agent")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Scratch]:
    with in_namespace(tmp_path) as scratch:
        yield scratch


def test_up_drift_and_away(lab: Scratch) -> None:
    """Up once; a second run nothing; each drift is repaired in its own words and alone; away."""
    reasons, done = lab.run()
    assert done.returncode == 0, done.stdout
    assert reasons == [
        f"@local /etc/netns/{NAMESPACE}/hosts: add the lab's nodes: node0, node1, node2",
        "@local bridge br0: make, it is missing",
        "@local link eth0 of node0: make, it is missing",
        f"@local network namespace {NAMESPACE}: make, it is missing",
        f"@local user {USER}: make, the lab's UMLs run as it",
        "@uml/node1 route to node1 (192.168.1.101): add over br0, it is missing",
        "@uml/node1 tap HTAP: make, it is missing",
        "@uml/node2 route to node2 (192.168.1.102): add over br0, it is missing",
        "@uml/node2 tap HTAP2: make, it is missing",
    ]
    assert lab.run()[0] == []
    exec_ = f"ip netns exec {NAMESPACE}"
    assert sh(f"{exec_} getent hosts node0 node1 node2").split() == [
        *("192.168.1.100", "node0"),
        *("192.168.1.101", "node1"),
        *("192.168.1.102", "node2"),
    ]
    sh(f"{exec_} ping -c 1 -W 2 node0")

    ip = f"ip -n {NAMESPACE}"
    host, one, two = "@local", "@uml/node1", "@uml/node2"
    route1 = f"{one} route to node1 (192.168.1.101): add over br0, it is missing"
    route2 = f"{two} route to node2 (192.168.1.102): add over br0, it is missing"
    drifts: list[tuple[str, list[str]]] = [
        (
            f"{ip} link del br0",
            [
                f"{host} bridge br0: make, it is missing",
                route1,
                f"{one} tap HTAP: enslave to br0, it is detached",
                route2,
                f"{two} tap HTAP2: enslave to br0, it is detached",
            ],
        ),
        (f"{ip} link set HTAP nomaster", [f"{one} tap HTAP: enslave to br0, it is detached"]),
        (f"{ip} link del HTAP2", [f"{two} tap HTAP2: make, it is missing"]),
        (
            f"PYTHONPATH={REPOSITORY} {exec_} {sys.executable} -S -c "
            "'from umlaan.agent import tap; tap.give(\"HTAP\", 0)'",
            [f"{one} tap HTAP: user root → {USER}"],
        ),
        (f"{ip} link set HTAP down", [f"{one} tap HTAP: up, it is down"]),
        (  # a bridge follows its ports down
            f"{ip} link set HTAP mtu 1400",
            [f"{host} bridge br0: mtu 1400 → 1500", f"{one} tap HTAP: mtu 1400 → 1500"],
        ),
        (
            f"{ip} addr add 192.168.1.11/24 dev br0; {ip} addr del 192.168.1.10/24 dev br0;"
            f"{ip} addr replace 192.168.1.11/24 dev br0; {ip} route replace 192.168.1.101 dev br0;"
            f"{ip} route replace 192.168.1.102 dev br0",
            [f"{host} address of br0: 192.168.1.11/24 → 192.168.1.10/24"],
        ),
        (
            f"{ip} addr add 10.9.8.7/24 dev br0",
            [f"{host} address of br0: remove 10.9.8.7/24, the lab does not have it"],
        ),
        (f"{ip} link set br0 promisc off", [f"{host} bridge br0: promiscuous off → on"]),
        (
            f"{ip} link set br0 type bridge mcast_snooping 1",
            [f"{host} bridge br0: multicast snooping on → off"],
        ),
        (
            f"{ip} link set br0 address fe:fd:c0:a8:01:0b",
            [f"{host} bridge br0: MAC fe:fd:c0:a8:01:0b → fe:fd:c0:a8:01:0a"],
        ),
        (f"{ip} link set br0 down", [f"{host} bridge br0: up, it is down", route1, route2]),
        (f"{ip} route del 192.168.1.102", [route2]),
        (f"{ip} link del eth0", [f"{host} link eth0 of node0: make, it is missing"]),
        (
            f"{ip} addr flush dev eth0; {ip} addr add 192.168.1.99/32 dev eth0",
            [f"{host} address of eth0 (node0): 192.168.1.99/32 → 192.168.1.100/32"],
        ),
        (f"{ip} link set lo down", [f"{host} lo of network namespace {NAMESPACE}: up, it is down"]),
        (
            f"sed -i s/1.102/1.122/ /etc/netns/{NAMESPACE}/hosts",
            [f"{host} /etc/netns/{NAMESPACE}/hosts: node2 192.168.1.122 → 192.168.1.102"],
        ),
    ]
    for command, wanted in drifts:
        sh(command)
        reasons, done = lab.run()
        assert (done.returncode, reasons) == (0, sorted(wanted)), f"after {command}: {done.stdout}"
        assert lab.run()[0] == [], f"second run after {command}"

    lab.nodes = [1]
    assert lab.run()[0] == [
        f"@local /etc/netns/{NAMESPACE}/hosts: remove node2",
        "@local link HTAP2: remove, no node of this lab has it any more",
        "@local route to 192.168.1.102: remove, no node of this lab has it",
    ]
    assert lab.run()[0] == []

    reasons, done = lab.run("disconnect")
    assert reasons == [
        f"@local /etc/netns/{NAMESPACE}/hosts: remove",
        f"@local network namespace {NAMESPACE}: remove, with HTAP, br0, eth0",
        f"@local user {USER}: remove",
    ]
    assert lab.run("disconnect")[0] == []
    assert NAMESPACE not in sh("ip netns list")
    assert not Path(f"/etc/netns/{NAMESPACE}").exists()


def test_limit_to_one_node_brings_the_bridge_along(lab: Scratch) -> None:
    """--limit @uml/node2 converges that node whole, and leaves the other's tap for later."""
    reasons, done = lab.run("connect", "--limit", "@uml/node2")
    assert done.returncode == 0, done.stdout
    assert "@uml/node2 bridge br0: make, it is missing" in reasons
    assert "@uml/node2 tap HTAP2: make, it is missing" in reasons
    assert not any("HTAP:" in line for line in reasons)


def test_what_a_killed_run_left_is_cleared(lab: Scratch) -> None:
    """A name without a namespace behind; a link that had no mark yet."""
    Path("/run/netns").mkdir(exist_ok=True)
    Path(f"/run/netns/{NAMESPACE}").touch()
    reasons, _ = lab.run()
    assert f"@local network namespace {NAMESPACE}: make, its name leads nowhere" in reasons
    sys.path.insert(0, str(REPOSITORY))
    sh(f"ip -n {NAMESPACE} link del HTAP")
    import hashlib

    half = f"uml{hashlib.sha256(LAB.encode()).hexdigest()[:6]}12345"
    sh(f"ip -n {NAMESPACE} tuntap add dev {half} mode tap")
    assert lab.run()[0] == [
        f"@local link {half}: remove, a killed run left it half made",
        "@uml/node1 tap HTAP: make, it is missing",
    ]
    assert lab.run()[0] == []


def test_what_others_made_is_refused_and_stays(lab: Scratch) -> None:
    """A foreign tap stops its node alone; a foreign bridge stops the lab host; both stay as is."""
    lab.run()
    ip = f"ip -n {NAMESPACE}"
    sh(f"{ip} link del HTAP; {ip} tuntap add dev HTAP mode tap; {ip} link del HTAP2")
    before = sh(f"{ip} -j link show HTAP")
    reasons, done = lab.run()
    assert done.returncode != 0
    assert [line for line in reasons if line.startswith("@uml/node2")] == [
        "@uml/node2 tap HTAP2: make, it is missing"
    ]
    refused = [line for line in reasons if line.startswith("@uml/node1")]
    assert refused
    assert "HTAP is there already" in refused[0]
    assert "was not made by umlaan; it is left alone" in refused[0]
    assert sh(f"{ip} -j link show HTAP") == before
    sh(f"{ip} link del HTAP; {ip} link set br0 alias ''")
    reasons, done = lab.run()
    assert done.returncode != 0
    assert "br0 is there already" in "".join(reasons)
    assert f"ip -n {NAMESPACE} link set br0 alias umlaan:{LAB}" in "".join(reasons)
    assert "192.168.1.10/24" in sh(f"{ip} addr show br0")
    lab.run("disconnect")
    assert "192.168.1.10/24" in sh(f"{ip} addr show br0"), "a foreign bridge went"
    sh(f"{ip} link set br0 alias umlaan:{LAB}")
    reasons, done = lab.run()
    assert done.returncode == 0, done.stdout


def test_away_leaves_what_is_in_use(lab: Scratch) -> None:
    """A held tap fails before anything is removed; a process of others keeps the namespace."""
    lab.run()
    hold = (
        "import fcntl,os,struct,sys,time\n"
        "f=os.open('/dev/net/tun',os.O_RDWR)\n"
        "fcntl.ioctl(f,0x400454ca,struct.pack('16sH22x',b'HTAP',0x1002))\n"
        "print('held',flush=True)\ntime.sleep(60)\n"
    )
    enter = ["ip", "netns", "exec", NAMESPACE]
    with subprocess.Popen(
        [*enter, sys.executable, "-S", "-c", hold], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        reasons, done = lab.run("disconnect")
        assert done.returncode != 0
        assert reasons[0].startswith(f"@local tap HTAP is held by pid {holder.pid} (python")
        assert "HTAP" in sh(f"ip -n {NAMESPACE} link")
        assert lab.run()[0] == []
        lab.nodes = [2]
        reasons, _ = lab.run()
        assert not any("HTAP:" in line for line in reasons), "a held tap of a gone node was removed"
        lab.nodes = [1, 2]
        holder.kill()
    with subprocess.Popen([*enter, "sleep", "60"]) as sleeper:
        while "sleep" not in Path(f"/proc/{sleeper.pid}/comm").read_text():
            time.sleep(0.01)
        reasons, done = lab.run("disconnect")
        assert done.returncode == 0, done.stdout
        assert any(f"stays: in use by pid {sleeper.pid} (sleep)" in line for line in reasons)
        assert "br0" not in sh(f"ip -n {NAMESPACE} link")
        sleeper.kill()
    moved = f"{NAMESPACE}-b"
    lab.data["network"] = {"namespace": moved}
    lab.run()
    reasons, _ = lab.run("disconnect")
    assert f"@local network namespace {NAMESPACE}: remove, the lab had it before" in reasons
    assert f"@local network namespace {moved}: remove, with HTAP, HTAP2, br0, eth0" in reasons
    assert lab.run("disconnect")[0] == []
    assert NAMESPACE not in sh("ip netns list")


def test_a_run_killed_anywhere_is_made_whole(lab: Scratch) -> None:
    """Cut off after each single command: the next run converges, the one after does nothing."""
    from umlaan.plan.network_files import boot_script

    lines = boot_script(wanted(lab)).splitlines()
    commands = [c for line in lines[4:] for c in re.split(r" && (?=ip -n |umlaan)", line)]
    assert len(commands) > 15, commands
    whole = None
    for count in range(1, len(commands)):
        sh("\n".join([make_user(lab), *commands[:count]]))
        reasons, done = lab.run()
        assert done.returncode == 0, f"after {count} commands: {done.stdout}"
        assert lab.run()[0] == [], f"second run after {count} commands"
        links = [row["ifname"] for row in json.loads(sh(f"ip -n {NAMESPACE} -j link"))]
        whole = whole or sorted(links)
        assert sorted(links) == whole, f"after {count} commands"
        lab.run("disconnect")


def test_the_boot_script_leaves_nothing_to_do(lab: Scratch) -> None:
    """What the boot unit runs, on a machine that was just started; twice does no harm."""
    from umlaan.plan.network_files import boot_script

    script = lab.folder / "network.sh"
    script.write_text(boot_script(wanted(lab)))
    # It outlives a boot.
    sh(make_user(lab))
    sh(f"sh {script}; sh {script}")
    assert lab.run()[0] == [
        f"@local /etc/netns/{NAMESPACE}/hosts: add the lab's nodes: node0, node1, node2"
    ]


def test_both_readers_agree(lab: Scratch) -> None:
    """What pyroute2 reads here and what ``ip -j`` prints elsewhere are one and the same."""
    from umlaan.agent import network as reader
    from umlaan.facts.network import _read_here
    from umlaan.plan.network_state import parse_found

    lab.run()
    sh(f"ip -n {NAMESPACE} link add dev v0 type veth peer name v1")
    sh(f"ip -n {NAMESPACE} link set v0 up; ip -n {NAMESPACE} addr add 10.1.2.3/16 dev v0")
    command = [sys.executable, "-S", "-m", "umlaan.agent", "network", "read", NAMESPACE]
    files, accounts = wanted(lab).files, wanted(lab).accounts
    done = subprocess.run(
        [
            *command,
            *(f"--file={path}" for path in files),
            *(f"--account={name}" for name in accounts),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    by_ip = parse_found(json.loads(done.stdout))
    assert by_ip == parse_found(_read_here(wanted(lab), ""))
    assert by_ip.links["HTAP"].owner == USER
    assert by_ip.accounts[USER].comment == f"umlaan lab {LAB}"
    assert set(by_ip.links) == {"lo", "br0", "eth0", "HTAP", "HTAP2", "v0", "v1"}
    assert by_ip.links["HTAP"].tx is False
    assert reader.namespace_state("umlaan-no-such") == "missing"
