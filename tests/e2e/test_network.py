"""The lab's network for real, in namespaces of the test's own: up, drifts, refusals, away."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from umlaan.model.lab import HostData, build_lab
from umlaan.plan.network_state import Wanted, wanted_of

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = f"net{os.getpid()}"
NAMESPACE = f"umlaan-{LAB}"
HOST = f"umlaan-{LAB}h"

STORIES = {
    "connect": "network.tap() if '@uml' in host.groups else network.bridge()\n",
    "disconnect": "if '@uml' not in host.groups:\n    network.away()\n",
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")


def sh(command: str, *, check: bool = True) -> str:
    done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Scratch:
    """A lab of its own: pyinfra runs on it, in a namespace that stands for the host if given."""

    def __init__(self, folder: Path, namespace: str | None, host: str | None = None) -> None:
        self.folder = folder
        self.host = host
        self.nodes = [1, 2]
        self.data = {
            "lab": LAB,
            "network": {"namespace": namespace},
            "state_dir": str(folder / "state"),
            "cache_dir": str(folder / "cache"),
        }
        self.environment: dict[str, str] = {}
        (folder / "group_data").mkdir()
        for verb, story in STORIES.items():
            (folder / f"{verb}.py").write_text(
                f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
                f"from pyinfra.context import host\nfrom tasks import network\n\n{story}"
            )

    def run(
        self, verb: str = "connect", *more: str
    ) -> tuple[list[str], subprocess.CompletedProcess]:
        """The reasons that the run gave, sorted, and how it ended."""
        hosts = [f"@uml/node{n}" for n in self.nodes]
        (self.folder / "inventory.py").write_text(f"node0 = ['@local']\numl = {hosts!r}\n")
        lines = [f"{key} = {value!r}\n" for key, value in self.data.items()]
        (self.folder / "group_data" / "all.py").write_text("".join(lines))
        enter = ["ip", "netns", "exec", self.host] if self.host else []
        done = subprocess.run(
            [*enter, sys.executable, "-m", "pyinfra", "-y", "inventory.py", f"{verb}.py", *more],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        done.stdout = text
        assert "Traceback" not in text, text
        rows = re.findall(r"^ +\[(@\S+)\] +(.*)$", text, re.MULTILINE)
        noise = ("Connected", "Ready", "Skipped", "Success", "No changes", "Error")
        return sorted(f"{h} {t}" for h, t in rows if not t.startswith(noise)), done


def wanted(lab: Scratch) -> Wanted:
    rows = [HostData("@local", False, lab.data)]
    rows += [HostData(f"@uml/node{n}", True, lab.data) for n in lab.nodes]
    model = build_lab(rows)
    return wanted_of(model.hosts[0], model.nodes, model.peers())


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Scratch]:
    scratch = Scratch(tmp_path, NAMESPACE)
    yield scratch
    sh(f"ip netns del {NAMESPACE} 2>/dev/null || true; rm -rf /etc/netns/{NAMESPACE}")


def test_up_drift_and_away(lab: Scratch) -> None:
    """Up once; a second run nothing; each drift is repaired in its own words and alone; away."""
    reasons, done = lab.run()
    assert done.returncode == 0, done.stdout
    assert reasons == [
        f"@local /etc/netns/{NAMESPACE}/hosts: add the lab's nodes: node0, node1, node2",
        "@local bridge br0: make, it is missing",
        "@local link eth0 of node0: make, it is missing",
        f"@local network namespace {NAMESPACE}: make, it is missing",
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
        sh("\n".join(commands[:count]))
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
    files = ("/etc/hosts",)
    command = [sys.executable, "-S", "-m", "umlaan.agent", "network", "read", NAMESPACE]
    done = subprocess.run(
        [*command, *(f"--file={path}" for path in files)],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    by_ip = parse_found(json.loads(done.stdout))
    assert by_ip == parse_found(_read_here(NAMESPACE, files, ""))
    assert set(by_ip.links) == {"lo", "br0", "eth0", "HTAP", "HTAP2", "v0", "v1"}
    assert by_ip.links["HTAP"].tx is False
    assert reader.namespace_state("umlaan-no-such") == "missing"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Scratch]:
    """A namespace that stands for a whole machine, with an /etc/hosts of its own."""
    folder = Path(f"/etc/netns/{HOST}")
    folder.mkdir(parents=True)
    (folder / "hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\tnode0\n")
    sh(f"ip netns add {HOST}; ip -n {HOST} link set lo up")
    yield Scratch(tmp_path, None, HOST)
    sh(f"ip netns del {HOST}; rm -rf {folder}")


def test_the_procedures_way_on_the_host_itself(host: Scratch) -> None:
    """namespace None: the machine's own eth0 holds node0's address and keeps its LAN."""
    ip = f"ip -n {HOST}"
    sh(f"{ip} link add eth0 type veth peer name wall; {ip} link set eth0 up; {ip} link set wall up")
    sh(f"{ip} addr add 192.168.1.100/24 dev eth0")
    before = sh(f"{ip} -4 -j addr show eth0")
    names = Path(f"/etc/netns/{HOST}/hosts")
    old = names.read_text()
    reasons, done = host.run()
    assert done.returncode == 0, done.stdout
    assert "@local /etc/hosts: add the lab's nodes: node0, node1, node2" in reasons
    assert host.run()[0] == []
    assert sh(f"{ip} -4 -j addr show eth0") == before
    assert names.read_text().startswith(old)
    assert (host.folder / "state/backup/etc/hosts").read_text() == old
    routes = sh(f"{ip} route")
    assert "192.168.1.0/24 dev eth0" in routes
    assert "192.168.1.0/24 dev br0" not in routes, "the LAN was taken from eth0"
    assert "192.168.1.101 dev br0" in routes
    assert host.run("disconnect")[0] == [
        "@local /etc/hosts: take the lab's nodes out",
        "@local link HTAP2: remove",
        "@local link HTAP: remove",
        "@local link br0: remove",
    ]
    assert host.run("disconnect")[0] == []
    assert names.read_text() == old
    assert sh(f"{ip} -4 -j addr show eth0") == before


def test_on_the_host_itself_what_would_cut_its_user_off_is_refused(host: Scratch) -> None:
    """The ssh session's link, a clash of addresses, a name that means another machine."""
    ip = f"ip -n {HOST}"
    reasons, done = host.run()
    assert done.returncode == 0, done.stdout
    assert "192.168.1.100/32" in sh(f"{ip} addr show br0"), "node0's address is nowhere"
    host.environment = {"SSH_CONNECTION": "192.168.1.7 4000 192.168.1.10 22"}
    assert host.run()[0] == []
    sh(f"{ip} link set br0 promisc off")
    reasons, done = host.run()
    assert done.returncode != 0
    assert "bridge br0 carries this ssh session (192.168.1.10)" in reasons[0]
    host.environment = {}
    host.run()
    host.environment = {"SSH_CONNECTION": "192.168.1.101 4000 10.0.0.1 22"}
    assert "your ssh session comes from 192.168.1.101, the address of node1" in host.run()[0][0]
    host.environment = {}
    sh(f"{ip} link add other type bridge; {ip} addr add 192.168.1.102/24 dev other")
    reasons, done = host.run()
    assert done.returncode != 0
    assert [line for line in reasons if line.startswith("@uml/node2")][0].startswith(
        "@uml/node2 address of node2: 192.168.1.102 is the lab host's own, on other"
    )
    sh(f"{ip} link del other; echo 10.0.0.5 node2 >> /etc/netns/{HOST}/hosts")
    reasons, done = host.run()
    assert done.returncode != 0
    assert "names node2 10.0.0.5, the lab gives it 192.168.1.102" in reasons[0]


INIT = """#!/bin/sh
for link in eth0 vec0; do ifconfig $link 192.168.1.101 netmask 255.255.255.0 up; done
echo hello > /www/index.html
echo READY
exec httpd -f -p 80 -h /www
"""


class Guest:
    """The smallest UML guest that answers over TCP: busybox and an init of five lines."""

    def __init__(self, folder: Path, busybox: str) -> None:
        self.folder = folder
        tree = folder / "tree"
        for name in ("bin", "sbin", "dev", "www"):
            (tree / name).mkdir(parents=True)
        (tree / "bin/busybox").write_bytes(Path(busybox).read_bytes())
        (tree / "bin/busybox").chmod(0o755)
        for name in ("sh", "ifconfig", "httpd", "echo"):
            (tree / "bin" / name).symlink_to("busybox")
        (tree / "sbin/init").write_text(INIT)
        (tree / "sbin/init").chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, link: str) -> None:
        """Launch, wait for READY. A fresh image each time: the last guest was killed."""
        image, log = self.folder / "root.img", self.folder / "console.log"
        image.unlink(missing_ok=True)
        sh(f"truncate -s 32M {image} && mke2fs -q -F -t ext4 -d {self.folder}/tree {image}")
        words = f"umid={LAB} uml_dir={self.folder}/uml/ con0=null,fd:1 con=null ssl=null"
        words += f" root=/dev/ubda rw mem=64M ubda={image} init=/sbin/init {link}"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", NAMESPACE, "linux.uml", *words.split()],
                stdin=subprocess.DEVNULL,
                stdout=out,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while b"READY" not in log.read_bytes():
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9 of the whole group, as a crash leaves it."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def answers(self) -> bool:
        """One HTTP request from the lab host, within seconds."""
        ask = (
            "import socket,time\nend=time.time()+6\nwhile time.time()<end:\n"
            " try:\n  s=socket.create_connection(('192.168.1.101',80),2)\n"
            "  s.send(b'GET /index.html HTTP/1.0\\r\\n\\r\\n')\n  text=b''\n"
            "  while (more:=s.recv(999)): text+=more\n  assert b'hello' in text\n  break\n"
            " except OSError: time.sleep(.2)\nelse: raise SystemExit(1)\n"
        )
        enter = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-S", "-c", ask]
        return subprocess.run(enter, check=False).returncode == 0


@pytest.fixture
def guest(tmp_path: Path, lab: Scratch) -> Iterator[Guest]:
    busybox = shutil.which("busybox")
    if not busybox or not shutil.which("linux.uml"):
        pytest.fail("needs Debian's user-mode-linux and busybox-static")
    (tmp_path / "guest").mkdir()
    made = Guest(tmp_path / "guest", busybox)
    yield made
    made.kill()


def test_repair_under_a_running_guest(lab: Scratch, guest: Guest) -> None:
    """The bridge deleted while a guest runs; the offload that a vector guest leaves; a held tap."""
    lab.nodes = [1]
    lab.run()
    guest.start("vec0:transport=tap,ifname=HTAP,mac=fe:fd:c0:a8:01:65,depth=128,gro=1")
    assert guest.answers()
    sh(f"ip -n {NAMESPACE} link del br0")
    assert not guest.answers()
    assert lab.run()[0] == [
        "@local bridge br0: make, it is missing",
        "@uml/node1 route to node1 (192.168.1.101): add over br0, it is missing",
        "@uml/node1 tap HTAP: enslave to br0, it is detached",
    ]
    assert guest.answers()
    assert lab.run()[0] == []

    guest.kill()
    assert lab.run()[0] == [
        "@uml/node1 tap HTAP: transmit checksum offload on → off, a vector guest left it on"
    ]
    guest.start("eth0=tuntap,HTAP,fe:fd:c0:a8:01:65")
    assert guest.answers()
    assert lab.run()[0] == []
    reasons, done = lab.run("disconnect")
    assert done.returncode != 0
    assert reasons[0].startswith("@local tap HTAP is held by pid ")
    assert guest.answers()
