"""A kernel of the machine's own: built elsewhere, tried once through grub, confirmed; or not.

One that fails its checks and one that panics leave the one before running. What a lab does with
such a machine, tests/machine has.

The tests of this file are one story in order, on one machine, with as few boots as tell it; each
run of pyinfra is a user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.machine.lab import Lab
from tests.vm.machine import Machine, booted
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
SLOW = {"timeout": 900}
DATA = {
    "lab": "vm",
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

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("vm")
    with booted(folder / "machine") as machine:
        made = Lab(folder / "lab", machine, DATA)
        (made.folder / HOST).write_text(STORY)
        yield made


def serial(lab: Lab) -> str:
    assert isinstance(lab.machine, Machine)
    return lab.machine.serial.read_text("latin1")


def saved(lab: Lab) -> str:
    """grub's default, as its environment says it."""
    (line,) = [x for x in lab.machine.out("grub-editenv list").splitlines() if "saved_" in x]
    return line


def test_never_builds_installs_arms_and_says_that_a_reboot_is_needed(lab: Lab) -> None:
    old = lab.machine.out("uname -r")
    result = lab.run(HOST)
    assert result.failed == 0, result.output[-3000:]
    assert re.search(rf"running {re.escape(old)}, wanted \S+: reboot needed", result.output)
    assert "its tests wait for a reboot" in result.output
    assert lab.machine.out("uname -r") == old
    again = lab.run(HOST)
    assert (again.changed, again.failed) == (0, 0), again.output[-3000:]
    assert "reboot needed (the next boot tries it once)" in again.output


def test_when_needed_it_is_booted_once_through_grub_checked_and_confirmed(lab: Lab) -> None:
    before = lab.machine.boot_id()
    lab.data["reboot"] = "when_needed"
    result = lab.run(HOST)
    assert result.failed == 0, result.output[-3000:]
    assert "host kernel: runs, passed its checks, confirmed" in result.output
    assert lab.machine.boot_id() != before
    release = lab.machine.out("uname -r")
    assert release.startswith("6.1.") and "-umlaan-" in release
    entry = re.search(r"umlaan\.entry=(\S+)", lab.machine.out("cat /proc/cmdline"))
    assert entry and saved(lab) == f"saved_entry={entry[1]}"
    # The module was built for it, tested on it and put in its place, in the same run.
    assert lab.machine.out("modinfo -F vermagic small").split()[0] == release
    assert lab.machine.out("modprobe small says=there && cat /proc/small && rmmod small") == "there"
    again = lab.run(HOST)
    assert (again.changed, again.failed) == (0, 0), again.output[-3000:]


def test_a_check_that_fails_is_not_confirmed(lab: Lab) -> None:
    good = saved(lab)
    refused = {"parameters": ["quiet"], "checks": ["echo no such disk; exit 3"], **SLOW}
    result = lab.run(HOST, host_boot=refused)
    assert result.failed == 1 and result.verdict == "failed"
    assert "did not pass its checks: echo no such disk; exit 3: exit code 3" in result.output
    assert saved(lab) == good
    assert "quiet" in lab.machine.out("cat /proc/cmdline").split()


def test_a_kernel_that_panics_ends_with_the_old_one_running_and_said(lab: Lab) -> None:
    good = saved(lab)
    panics = {"parameters": ["init=/nonexistent"], "initramfs": False, "panic": 1, **SLOW}
    result = lab.run(HOST, host_boot=panics)
    assert result.verdict == "failed" and result.failed == 1 and result.code != 0
    assert re.search(r"\S+ did not come up when tried: the machine came back", result.output)
    assert "Kernel panic - not syncing: Requested init" in serial(lab)
    # It is the confirmed one that came back, not the one that was refused before.
    assert saved(lab) == good
    words = lab.machine.out("cat /proc/cmdline").split()
    assert good.replace("saved_entry", "umlaan.entry") in words and "quiet" not in words
    before = lab.machine.boot_id()
    again = lab.run(HOST, host_boot=panics)
    assert again.changed == 0 and again.failed == 1, again.output[-3000:]
    assert lab.machine.boot_id() == before, "it was tried a second time"
    back = lab.run(HOST)
    assert (back.changed, back.failed) == (0, 0), back.output[-3000:]


def test_destroy_leaves_the_kernel_that_runs_and_takes_it_once_another_does(lab: Lab) -> None:
    assert isinstance(lab.machine, Machine)
    release = lab.machine.out("uname -r")
    result = lab.run("tasks/destroy.py")
    assert result.failed == 0, result.output[-3000:]
    assert f"host kernel {release} stays, with its entry in grub's menu: it runs" in result.output
    assert lab.machine.out(f"ls /boot/vmlinuz-{release}")
    menu = grub.entries(lab.machine.out("cat /boot/grub/grub.cfg"))
    names = lab.machine.out("ls /boot").split()
    old = next(n for n in names if n.startswith("vmlinuz-") and n != f"vmlinuz-{release}")
    old = old.removeprefix("vmlinuz-")
    entry = grub.entry_of_release(menu, old)
    before = lab.machine.boot_id()
    lab.machine.out(f"grub-reboot '{entry}' && sync")
    lab.machine.kill()
    lab.machine.start()
    lab.machine.wait(other_than=before)
    assert lab.machine.out("uname -r") == old
    result = lab.run("tasks/destroy.py")
    assert result.failed == 0 and "host kernel: remove" in result.output, result.output[-3000:]
    assert "umlaan" not in lab.machine.out("ls /boot /lib/modules /etc/grub.d /etc/default/grub.d")
    assert "umlaan" not in lab.machine.out("cat /boot/grub/grub.cfg")
    assert "saved_entry" not in lab.machine.out("grub-editenv list"), "none was set before"
    assert lab.machine.out("ls /var/lib/umlaan 2>/dev/null || true") == ""
    again = lab.run("tasks/destroy.py")
    assert (again.changed, again.failed) == (0, 0), again.output[-3000:]
