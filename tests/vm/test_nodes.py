"""node0 is a whole machine with systemd: a UML node on its /dev/sdb6, and what a reboot leaves.

The tests of this file are one story in order, on one machine; each run of pyinfra is a user's.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator

import pytest

from tests.vm.lab import NEEDS, Lab, booted

NODE = "@uml/node1"
STATE = "/var/lib/umlaan/vm"
UNIT = "umlaan-vm-nodes.service"
# The procedure's own way: the host's root namespace, a partition of the user's as the root.
DATA = {
    "lab": "vm",
    "network": {"namespace": None},
    "root": "/dev/sdb6",
    "node": {"mem": "192M", "boot_timeout": 900, "dcid": None},
    "dvs": None,
}

pytestmark = NEEDS


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with booted(tmp_path_factory.mktemp("vm-nodes"), DATA) as made:
        yield made


def inside(lab: Lab, command: str) -> str:
    """A command in the guest, by the lab's own ssh key; the lab host's view of it."""
    words = ["ssh", "-F", "none", "-i", f"{STATE}/ssh/id_ed25519", "-o", "BatchMode=yes"]
    words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    words += ["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=120", "root@192.168.1.101", command]
    deadline = time.monotonic() + 600
    while True:
        done = lab.machine.ssh(shlex.join(words), check=False, timeout=600)
        if not done.returncode:
            return done.stdout.strip()
        # A guest that the unit has just started has a while to go to its sshd.
        assert done.returncode == 255 and time.monotonic() < deadline, done.stderr
        time.sleep(3)


def uml_pid(lab: Lab) -> str:
    """The pid in node1's launch record, of a process that is there."""
    script = (
        "import json, sys; from umlaan.agent import node; "
        f"r = node.read_record('{STATE}/nodes/node1'); print(r['pid'] if node.running(r) else '')"
    )
    return lab.machine.out(
        f"PYTHONPATH=$(ls {STATE}/at-boot/*.zip) python3 -S -c {shlex.quote(script)}"
    )


def test_a_node_on_a_partition_with_the_bridge_in_the_root_namespace(lab: Lab) -> None:
    result = lab.run("deploy.py", NODE)
    assert (result.failed, result.verdict) == (0, "up"), result.output[-3000:]
    links = lab.machine.out("bridge link show; ip -br address show br0")
    assert "HTAP" in links and "192.168.1.10/24" in links
    assert "/dev/sdb6" in lab.machine.out(f"cat {STATE}/nodes/node1/launch.json")
    assert inside(lab, "hostname; cat /root/a-file-of-mine").split("\n") == ["node1", "keep this"]
    again = lab.run("deploy.py", NODE)
    assert (again.changed, again.failed, again.verdict) == (0, 0, "up"), again.output[-3000:]


def test_after_a_reboot_it_is_up_by_itself_and_a_run_changes_nothing(lab: Lab) -> None:
    inside(lab, "echo kept >/root/before; sync")
    before = lab.machine.boot_id()
    lab.machine.ssh("systemctl reboot", check=False)
    lab.machine.wait(deadline=900, other_than=before)
    # No run comes near it until it is up: the units alone bring it back.
    deadline = time.monotonic() + 900
    while not (pid := uml_pid(lab)):
        assert time.monotonic() < deadline, lab.machine.out(f"journalctl -b -u {UNIT}")
        time.sleep(3)
    assert inside(lab, "cat /root/before") == "kept"
    log = lab.machine.out(f"cat {STATE}/nodes/node1/console.log")
    assert "exit code 0" in log, "it was not stopped cleanly before the machine went down"
    result = lab.run("deploy.py", NODE)
    assert (result.changed, result.failed, result.verdict) == (0, 0, "up"), result.output[-3000:]
    assert uml_pid(lab) == pid, "the run took another one for its node"


def test_an_edited_unit_is_repaired(lab: Lab) -> None:
    lab.machine.out(f"systemctl disable -q {UNIT}; echo >>/etc/systemd/system/{UNIT}")
    result = lab.run("deploy.py", NODE)
    assert (result.changed, result.failed) == (1, 0), result.output[-3000:]
    assert f"{UNIT}: enable, it is off" in result.output
    assert lab.machine.out(f"systemctl is-enabled {UNIT}") == "enabled"


def test_destroy_leaves_the_partition_and_nothing_that_starts(lab: Lab) -> None:
    result = lab.run("tasks/destroy.py", NODE)
    assert (result.failed, result.verdict) == (0, "absent"), result.output[-3000:]
    assert lab.machine.out("ls /etc/systemd/system | grep umlaan || true") == ""
    assert lab.machine.out("ip -br link show type bridge") == ""
    assert lab.machine.out("ls /var/lib/umlaan 2>/dev/null || true") == ""
    kept = "mount -o ro /dev/sdb6 /mnt && cat /mnt/root/a-file-of-mine; umount /mnt"
    assert lab.machine.out(kept) == "keep this"
    again = lab.run("tasks/destroy.py", NODE)
    assert (again.changed, again.verdict) == (0, "absent")
