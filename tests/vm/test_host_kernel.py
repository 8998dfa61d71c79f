"""node0 is a whole machine: its kernel built elsewhere, tried once, confirmed; a panic survived.

The tests of this file are one story in order, on one machine; each run of pyinfra is a user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.vm import pair
from tests.vm.lab import LIMIT, Lab, booted
from umlaan.agent import boot

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
DATA = {
    **pair.DATA,
    "reboot": "never",
    "host_kernel": {
        "source": "package:linux-source-6.1",
        "arch": "x86_64",
        "fragments": ["templates/kernel/host-small.config"],
    },
    "host_boot": {"checks": ["test -d /sys/class/net/eth0", "modprobe tun"]},
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
    result = lab.run("deploy.py", pair.NODE)
    assert (result.failed, result.verdict) == (0, "down"), result.output[-3000:]
    assert re.search(rf"running {re.escape(old)}, wanted \S+: reboot needed", result.output)
    assert "its tests wait for a reboot" in result.output
    assert lab.machine.out("uname -r") == old
    # What needs the new kernel waits, all else is there.
    assert "node0: its DVS waits: host kernel: running" in result.output
    assert "waits for the DVS of its lab host" in result.output
    assert lab.machine.out(f"ls {pair.STATE}/services 2>&1 || true").endswith(
        "No such file or directory"
    )
    root = (
        "mount -o ro /dev/sdb6 /mnt && cat /mnt/etc/hostname; ls -d /mnt/usr/src/dvs; umount /mnt"
    )
    assert lab.machine.out(root).split() == ["node1", "/mnt/usr/src/dvs"]
    assert "192.168.1.10/24" in lab.machine.out("ip -br address show br0")
    again = lab.run("deploy.py", pair.NODE)
    assert (again.changed, again.failed, again.verdict) == (0, 0, "down"), again.output[-3000:]
    assert "reboot needed (the next boot tries it once)" in again.output


def test_when_needed_it_is_booted_once_through_grub_checked_and_confirmed(lab: Lab) -> None:
    before = lab.machine.boot_id()
    lab.data["reboot"] = "when_needed"
    result = lab.run("deploy.py", pair.NODE)
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
    again = lab.run("deploy.py", pair.NODE)
    assert (again.changed, again.failed, again.verdict) == (0, 0, "up"), again.output[-3000:]
    # Else each of the next boots would bring the guest back.
    down = lab.run("tasks/down.py", pair.NODE)
    assert (down.failed, down.verdict) == (0, "down"), down.output[-3000:]


def test_its_next_boot_by_itself_is_the_confirmed_one(lab: Lab) -> None:
    release, before = lab.machine.out("uname -r"), lab.machine.boot_id()
    lab.machine.kill()
    lab.machine.start()
    lab.machine.wait(other_than=before)
    assert lab.machine.out("uname -r") == release


def test_a_kernel_that_panics_ends_with_the_old_one_running_and_said(lab: Lab) -> None:
    kept = dict(lab.data)
    good = lab.machine.out("grub-editenv list")
    lab.data["host_boot"] = {"parameters": ["init=/nonexistent"], "initramfs": False}
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
    lab.data["host_boot"] = {"parameters": ["quiet"], "checks": ["echo no such disk; exit 3"]}
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
    result = lab.run("tasks/destroy.py")
    assert result.failed == 0, result.output[-3000:]
    assert f"host kernel {release} stays, with its entry in grub's menu: it runs" in result.output
    assert lab.machine.out(f"ls /boot/vmlinuz-{release}")
    menu = boot.entries(lab.machine.out("cat /boot/grub/grub.cfg"))
    names = lab.machine.out("ls /boot").split()
    old = next(n for n in names if n.startswith("vmlinuz-") and n != f"vmlinuz-{release}")
    old = old.removeprefix("vmlinuz-")
    entry = boot.entry_of_release(menu, old)
    before = lab.machine.boot_id()
    lab.machine.ssh(f"grub-reboot '{entry}' && systemctl reboot", check=False)
    lab.machine.wait(other_than=before)
    assert lab.machine.out("uname -r") == old
    result = lab.run("tasks/destroy.py")
    assert result.failed == 0 and "host kernel: remove" in result.output, result.output[-3000:]
    assert "umlaan" not in lab.machine.out("ls /boot /lib/modules /etc/grub.d /etc/default/grub.d")
    assert "umlaan" not in lab.machine.out("cat /boot/grub/grub.cfg")
    again = lab.run("tasks/destroy.py")
    assert (again.changed, again.failed) == (0, 0), again.output[-3000:]
