"""The lab's network in use: on the host itself beside its LAN, and under a running guest."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scratch import LAB, NAMESPACE, USER, Scratch, in_namespace, sh

HOST = f"umlaan-{LAB}h"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Scratch]:
    """A namespace that stands for a whole machine, with an /etc/hosts of its own."""
    folder = Path(f"/etc/netns/{HOST}")
    folder.mkdir(parents=True)
    (folder / "hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\tnode0\n")
    sh(f"ip netns add {HOST}; ip -n {HOST} link set lo up")
    yield Scratch(tmp_path, None, HOST)
    sh(f"ip netns del {HOST}; rm -rf {folder}; ! getent passwd {USER} || userdel {USER}")


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
        f"@local user {USER}: remove",
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
def lab(tmp_path: Path) -> Iterator[Scratch]:
    with in_namespace(tmp_path) as scratch:
        yield scratch


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
