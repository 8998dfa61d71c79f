"""The procedure on a whole machine: its own kernel, its DVS and a DC, a UML on /dev/sdb6 inside it.

The kernel is built elsewhere, tried once, confirmed; a panic is survived; a reboot brings all back.

The tests of this file are one story in order, on one machine; each run of pyinfra is a user's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.vm import pair
from tests.vm.lab import LIMIT, Lab, booted
from tests.vm.pair import NODE, STATE, UNIT, inside
from umlaan.agent import grub

HOST = "host_kernel_only.py"
STORY = """from pyinfra.context import host
from tasks import host_kernel
from umlaan.inventory import is_lab_host
from umlaan.run import begin

begin()
if is_lab_host(host):
    host_kernel.converge()
    host_kernel.modules()
host_kernel.verdict()
"""
SLOW = {"timeout": 1800}
DATA = {
    **pair.DATA,
    "reboot": "never",
    "host_kernel": {
        "source": "package:linux-source-6.1",
        "arch": "x86_64",
        "fragments": ["templates/kernel/host-small.config"],
    },
    "host_boot": {"checks": ["test -d /sys/class/net/eth0", "modprobe tun"], **SLOW},
    "host_modules": [
        {
            "name": "small",
            "source": "examples/small-module",
            "tests": ["insmod {ko} says=hello", "grep -q hello /proc/small", "rmmod small"],
        }
    ],
}

pytestmark = LIMIT


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with booted(tmp_path_factory.mktemp("vm"), DATA) as made:
        (made.folder / HOST).write_text(STORY)
        yield made


def test_never_builds_installs_arms_and_says_that_a_reboot_is_needed(lab: Lab) -> None:
    old = lab.machine.out("uname -r")
    result = lab.run("deploy.py", NODE)
    assert (result.failed, result.verdict) == (0, "down"), result.output[-3000:]
    assert re.search(rf"running {re.escape(old)}, wanted \S+: reboot needed", result.output)
    assert "its tests wait for a reboot" in result.output
    assert lab.machine.out("uname -r") == old
    # What needs the new kernel waits, all else is there.
    assert "node0: its DVS waits: host kernel: running" in result.output
    assert "waits for the DVS of its lab host" in result.output
    assert lab.machine.out(f"ls {STATE}/services 2>&1 || true").endswith(
        "No such file or directory"
    )
    root = (
        "mount -o ro /dev/sdb6 /mnt && cat /mnt/etc/hostname; ls -d /mnt/usr/src/dvs; umount /mnt"
    )
    assert lab.machine.out(root).split() == ["node1", "/mnt/usr/src/dvs"]
    assert "192.168.1.10/24" in lab.machine.out("ip -br address show br0")
    again = lab.run("deploy.py", NODE)
    assert (again.changed, again.failed, again.verdict) == (0, 0, "down"), again.output[-3000:]
    assert "reboot needed (the next boot tries it once)" in again.output


def test_when_needed_it_is_booted_once_through_grub_checked_and_confirmed(lab: Lab) -> None:
    before = lab.machine.boot_id()
    lab.data["reboot"] = "when_needed"
    result = lab.run("deploy.py", NODE)
    assert (result.failed, result.verdict) == (0, "up"), result.output[-3000:]
    assert "host kernel: runs, passed its checks, confirmed" in result.output
    assert lab.machine.boot_id() != before
    release = lab.machine.out("uname -r")
    assert release.startswith("6.1.") and "-umlaan-" in release
    entry = re.search(r"umlaan\.entry=(\S+)", lab.machine.out("cat /proc/cmdline"))
    assert entry
    assert f"saved_entry={entry[1]}" in lab.machine.out("grub-editenv list").splitlines()
    # The module was built for it, tested on it and put in its place, in the same run.
    assert lab.machine.out("modinfo -F vermagic small").split()[0] == release
    assert lab.machine.out("modprobe small says=there && cat /proc/small && rmmod small") == "there"
    # What waited for it came up in the same run.
    assert pair.inside_its_dc(lab) and pair.unjoined(lab) == []
    assert "message loop" in result.output and "node0 ↔ node1" in result.output
    links = lab.machine.out("bridge link show; ip -br address show br0")
    assert "HTAP" in links and "192.168.1.10/24" in links
    assert "/dev/sdb6" in lab.machine.out(f"cat {STATE}/nodes/node1/launch.json")
    assert inside(lab, "hostname; cat /root/a-file-of-mine").split("\n") == ["node1", "keep this"]
    again = lab.run("deploy.py", NODE)
    assert (again.changed, again.failed, again.verdict) == (0, 0, "up"), again.output[-3000:]


def test_after_a_reboot_all_is_up_by_itself_and_a_run_changes_nothing(lab: Lab) -> None:
    inside(lab, "echo kept >/root/before; sync")
    release = lab.machine.out("uname -r")
    before, dc = lab.machine.boot_id(), pair.dc_pid(lab)
    lab.machine.ssh("systemctl reboot", check=False)
    lab.machine.wait(other_than=before)
    assert lab.machine.out("uname -r") == release
    # No run comes near it until it is up: the units alone bring it back.
    deadline = time.monotonic() + 1800
    while not (uml := pair.uml_pid(lab)):
        assert time.monotonic() < deadline, pair.journal(lab)
        time.sleep(3)
    assert inside(lab, "cat /root/before") == "kept"
    log = lab.machine.out(f"cat {STATE}/nodes/node1/console.log")
    clean = re.search(r"exit code 0\]\s+\[umlaan: \S+ \S+ stopped by cad in", log)
    assert clean, f"not stopped cleanly before the machine went down:\n{log}\n{pair.end(lab)}"
    assert pair.inside_its_dc(lab)
    deadline = time.monotonic() + 1800
    while faults := pair.unjoined(lab):
        assert time.monotonic() < deadline, f"{faults}\n{pair.journal(lab)}"
        time.sleep(3)
    found = pair.pids(lab)
    result = lab.run("deploy.py", NODE)
    assert (result.changed, result.failed, result.verdict) == (0, 0, "up"), result.output[-3000:]
    assert pair.pids(lab) == found, "the run took others for its DC, its node or its proxies"
    assert uml in found and dc != found[0]


def test_a_killed_guest_takes_the_machine_along_where_only_that_ends_its_peer(lab: Lab) -> None:
    kept, before = dict(lab.data), lab.machine.boot_id()
    programs = {**pair.DVS["programs"], "proxy_restart": "lab"}
    lab.data["dvs"] = {**pair.DVS, "programs": programs}
    lab.machine.out(f"kill -KILL -- -$(ps -o pgid= -p {pair.uml_pid(lab)} | tr -d ' ')")
    result = lab.run("deploy.py", NODE)
    assert (result.failed, result.verdict) == (0, "up"), result.output[-3000:]
    said = "node0: reboot it, its proxies end with it: node0's proxy to node1 outlives it, node1"
    assert said in result.output
    assert lab.machine.boot_id() != before
    assert pair.inside_its_dc(lab) and pair.unjoined(lab) == []
    again = lab.run("deploy.py", NODE)
    assert (again.changed, again.failed, again.verdict) == (0, 0, "up"), again.output[-3000:]
    lab.data = kept


def test_an_edited_unit_is_repaired(lab: Lab) -> None:
    lab.machine.out(f"systemctl disable -q {UNIT}; echo >>/etc/systemd/system/{UNIT}")
    result = lab.run("deploy.py", NODE, limit="127.0.0.1")
    # The lab host alone was asked for; what its node is, is told all the same.
    assert (result.changed, result.verdict, result.code) == (1, "up", 0), result.output[-3000:]
    assert f"{UNIT}: enable, it is off" in result.output
    assert lab.machine.out(f"systemctl is-enabled {UNIT}") == "enabled"
    # Else each of the next boots would bring the guest back.
    down = lab.run("tasks/down.py", NODE)
    assert (down.failed, down.verdict) == (0, "down"), down.output[-3000:]


def test_a_kernel_that_panics_ends_with_the_old_one_running_and_said(lab: Lab) -> None:
    kept = dict(lab.data)
    good = lab.machine.out("grub-editenv list")
    lab.data["host_boot"] = {"parameters": ["init=/nonexistent"], "initramfs": False, **SLOW}
    result = lab.run(HOST)
    assert result.verdict == "failed" and result.failed == 1 and result.code != 0
    assert re.search(r"\S+ did not come up when tried: the machine came back", result.output)
    assert "Kernel panic - not syncing: Requested init" in lab.machine.serial.read_text("latin1")
    assert good.splitlines()[0] in lab.machine.out("grub-editenv list").splitlines()
    before = lab.machine.boot_id()
    again = lab.run(HOST)
    assert again.changed == 0 and again.failed == 1, again.output[-3000:]
    assert lab.machine.boot_id() == before, "it was tried a second time"
    lab.data = kept
    back = lab.run(HOST)
    assert (back.changed, back.failed) == (0, 0), back.output[-3000:]


def test_a_check_that_fails_is_not_confirmed(lab: Lab) -> None:
    kept = dict(lab.data)
    saved = lab.machine.out("grub-editenv list").splitlines()[0]
    lab.data["host_boot"] = {
        "parameters": ["quiet"],
        "checks": ["echo no such disk; exit 3"],
        **SLOW,
    }
    result = lab.run(HOST)
    assert result.failed == 1
    assert "did not pass its checks: echo no such disk; exit 3: exit code 3" in result.output
    assert saved in lab.machine.out("grub-editenv list").splitlines()
    before = lab.machine.boot_id()
    lab.machine.kill()
    lab.machine.start()
    lab.machine.wait(other_than=before)
    assert "quiet" not in lab.machine.out("cat /proc/cmdline").split()
    lab.data = kept


def test_destroy_leaves_the_kernel_that_runs_and_takes_it_once_another_does(lab: Lab) -> None:
    release = lab.machine.out("uname -r")
    result = lab.run("tasks/destroy.py", NODE)
    assert result.failed == 0, result.output[-3000:]
    assert f"host kernel {release} stays, with its entry in grub's menu: it runs" in result.output
    assert lab.machine.out(f"ls /boot/vmlinuz-{release}")
    assert lab.machine.out("ls /etc/systemd/system | grep umlaan || true") == ""
    assert lab.machine.out("ip -br link show type bridge") == ""
    kept = "mount -o ro /dev/sdb6 /mnt && cat /mnt/root/a-file-of-mine; umount /mnt"
    assert lab.machine.out(kept) == "keep this"
    menu = grub.entries(lab.machine.out("cat /boot/grub/grub.cfg"))
    names = lab.machine.out("ls /boot").split()
    old = next(n for n in names if n.startswith("vmlinuz-") and n != f"vmlinuz-{release}")
    old = old.removeprefix("vmlinuz-")
    entry = grub.entry_of_release(menu, old)
    before = lab.machine.boot_id()
    lab.machine.ssh(f"grub-reboot '{entry}' && systemctl reboot", check=False)
    lab.machine.wait(other_than=before)
    assert lab.machine.out("uname -r") == old
    result = lab.run("tasks/destroy.py", NODE)
    assert result.failed == 0 and "host kernel: remove" in result.output, result.output[-3000:]
    assert "umlaan" not in lab.machine.out("ls /boot /lib/modules /etc/grub.d /etc/default/grub.d")
    assert "umlaan" not in lab.machine.out("cat /boot/grub/grub.cfg")
    assert "saved_entry" not in lab.machine.out("grub-editenv list"), "none was set before"
    assert lab.machine.out("ls /var/lib/umlaan 2>/dev/null || true") == ""
    again = lab.run("tasks/destroy.py", NODE)
    assert (again.changed, again.failed) == (0, 0), again.output[-3000:]
