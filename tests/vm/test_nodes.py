"""node0 is a whole machine with systemd: its DVS, a UML on its /dev/sdb6 in a DC, a reboot.

The tests of this file are one story in order, on one machine; each run of pyinfra is a user's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.vm.lab import LIMIT, Lab, booted
from tests.vm.pair import (
    DATA,
    NODE,
    STATE,
    UNIT,
    dc_pid,
    inside,
    inside_its_dc,
    journal,
    pids,
    uml_pid,
    unjoined,
)

pytestmark = LIMIT


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with booted(tmp_path_factory.mktemp("vm-nodes"), DATA) as made:
        yield made


def test_a_pair_of_machine_and_uml_on_a_partition_inside_a_dc(lab: Lab) -> None:
    result = lab.run("deploy.py", NODE)
    assert (result.failed, result.verdict) == (0, "up"), result.output[-3000:]
    links = lab.machine.out("bridge link show; ip -br address show br0")
    assert "HTAP" in links and "192.168.1.10/24" in links
    assert "/dev/sdb6" in lab.machine.out(f"cat {STATE}/nodes/node1/launch.json")
    assert inside(lab, "hostname; cat /root/a-file-of-mine").split("\n") == ["node1", "keep this"]
    assert inside_its_dc(lab) and unjoined(lab) == []
    assert "message loop" in result.output and "node0 ↔ node1" in result.output
    again = lab.run("deploy.py", NODE)
    assert (again.changed, again.failed, again.verdict) == (0, 0, "up"), again.output[-3000:]


def test_after_a_reboot_all_is_up_by_itself_and_a_run_changes_nothing(lab: Lab) -> None:
    inside(lab, "echo kept >/root/before; sync")
    before, dc = lab.machine.boot_id(), dc_pid(lab)
    lab.machine.ssh("systemctl reboot", check=False)
    lab.machine.wait(deadline=900, other_than=before)
    # No run comes near it until it is up: the units alone bring it back.
    deadline = time.monotonic() + 900
    while not (uml := uml_pid(lab)):
        assert time.monotonic() < deadline, journal(lab)
        time.sleep(3)
    assert inside(lab, "cat /root/before") == "kept"
    log = lab.machine.out(f"cat {STATE}/nodes/node1/console.log")
    assert "exit code 0" in log, "it was not stopped cleanly before the machine went down"
    assert inside_its_dc(lab)
    deadline = time.monotonic() + 900
    while faults := unjoined(lab):
        assert time.monotonic() < deadline, f"{faults}\n{journal(lab)}"
        time.sleep(3)
    found = pids(lab)
    result = lab.run("deploy.py", NODE)
    assert (result.changed, result.failed, result.verdict) == (0, 0, "up"), result.output[-3000:]
    assert pids(lab) == found, "the run took others for its DC, its node or its proxies"
    assert uml in found and dc != found[0]


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
