"""The procedure on a whole machine with systemd: its DVS and a DC, a UML on /dev/sdb6 inside it.

All of it waits for a host kernel, and comes up once that is confirmed (tests/vm has a real one, and
real panics). A reboot brings all back, units are repaired, a machine is rebooted where only that
helps, destroy leaves the user's partition alone.

The tests of this file are one story in order, on one machine; each run of pyinfra is a user's.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.machine import guestroot, pair, standin
from tests.machine.lab import Lab
from tests.machine.machine import Underlay
from tests.machine.pair import NODE, STATE, UNIT, inside
from umlaan.agent import grub

pytestmark = pytest.mark.timeout(1800)


# What a lab on this machine, from its first run to its end, must leave as it was.
THE_HOSTS_OWN = """cd /proc/sys && grep -r . kernel/hostname kernel/domainname kernel/printk \\
    kernel/sysrq kernel/core_pattern net/ipv4/ip_forward net/ipv4/conf/all net/ipv4/conf/default
ip -o link | cut -d: -f2 | cut -d@ -f1; ip route
ip -br -4 address | sed 's,@if[0-9]*,,; s, *$,,; s,  *, ,g'
cd /etc && sha256sum hostname hosts resolv.conf fstab passwd group shadow gshadow 2>&1
find /etc/network /etc/ssh /etc/systemd/network /root /usr/local /home /srv \\
    -path /root/.cache -prune -o -printf '%p %y %m %u %l\\n'
find /etc/network /etc/ssh /root /usr/local /home /srv \\
    -path /root/.cache -prune -o -type f -exec sha256sum {} +
stat -c '%U %G %a' /dev/sdb6 /etc /root /tmp /var/tmp /run /var/lib"""
SEEN: dict[str, set[str]] = {}


def the_hosts_own(lab: Lab) -> set[str]:
    return set(lab.machine.out(THE_HOSTS_OWN).splitlines())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Underlay() as under:
        disk = under.folder / "sdb6.raw"
        shutil.copyfile(guestroot.root(), disk)
        machine = under.machine("machine0", {"/dev/sdb6": disk})
        machine.start()
        folder = tmp_path_factory.mktemp("pair")
        kernel = {"source": str(standin.kernel_source(folder / "linux")), "arch": "x86_64"}
        more = {
            "reboot": "never",
            "host_kernel": {**kernel, "fragments": []},
            "host_boot": {"initramfs": False},
        }
        try:
            print(f"up after {machine.wait():.0f} s")
            # The kernel that runs, as grub finds one; whose file it is does not matter here.
            machine.out("touch /boot/vmlinuz-$(uname -r); grub-editenv create && update-grub")
            yield Lab(folder / "lab", machine, pair.DATA | more)
        finally:
            print(machine.tail(5))


def test_never_installs_arms_and_says_that_a_reboot_is_needed(lab: Lab) -> None:
    SEEN["before"] = the_hosts_own(lab)
    old = lab.machine.out("uname -r")
    result = lab.run("deploy.py", NODE)
    assert (result.failed, result.verdict) == (0, "down"), result.output[-3000:]
    assert re.search(rf"running {re.escape(old)}, wanted \S+: reboot needed", result.output)
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


def test_when_needed_it_is_confirmed_and_what_waited_comes_up_in_the_same_run(lab: Lab) -> None:
    before = lab.machine.boot_id()
    lab.data["reboot"] = "when_needed"
    result = lab.run("deploy.py", NODE)
    assert (result.failed, result.verdict) == (0, "up"), result.output[-3000:]
    assert "host kernel: runs, passed its checks, confirmed" in result.output
    assert lab.machine.boot_id() != before
    entry = re.search(r"umlaan\.entry=(\S+)", lab.machine.out("cat /proc/cmdline"))
    assert entry
    assert f"saved_entry={entry[1]}" in lab.machine.out("grub-editenv list").splitlines()
    assert "-umlaan-" in lab.machine.out("cat /proc/sys/kernel/osrelease"), "the stand-in's word"
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
    dc = pair.dc_pid(lab)
    print(f"reboot: {lab.machine.reboot():.0f} s")
    # No run comes near it until it is up: the units alone bring it back.
    uml = pair.wait_until_launched(lab)
    assert inside(lab, "cat /root/before") == "kept"
    log = lab.machine.out(f"cat {STATE}/nodes/node1/console.log")
    clean = re.search(r"exit code 0\]\s+\[umlaan: \S+ \S+ stopped by cad in", log)
    assert clean, f"not stopped cleanly before the machine went down:\n{log}\n{pair.end(lab)}"
    assert pair.inside_its_dc(lab)
    pair.wait_until_joined(lab)
    found = pair.pids(lab)
    result = lab.run("deploy.py", NODE)
    assert (result.changed, result.failed, result.verdict) == (0, 0, "up"), result.output[-3000:]
    assert pair.pids(lab) == found, "the run took others for its DC, its node or its proxies"
    assert uml in found and dc


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
    result = lab.run("deploy.py", NODE, limit=lab.machine.name)
    # The lab host alone was asked for; what its node is, is told all the same.
    assert (result.changed, result.verdict, result.code) == (1, "up", 0), result.output[-3000:]
    assert f"{UNIT}: enable, it is off" in result.output
    assert lab.machine.out(f"systemctl is-enabled {UNIT}") == "enabled"
    # Else each of the next boots would bring the guest back.
    down = lab.run("tasks/down.py", NODE)
    assert (down.failed, down.verdict) == (0, "down"), down.output[-3000:]


def test_destroy_leaves_the_users_partition_and_nothing_of_its_own(lab: Lab) -> None:
    result = lab.run("tasks/destroy.py", NODE)
    assert result.failed == 0, result.output[-3000:]
    assert "stays, with its entry in grub's menu: it runs" in result.output
    assert lab.machine.out("ls /etc/systemd/system | grep umlaan || true") == ""
    assert lab.machine.out("ip -br link show type bridge") == ""
    kept = "mount -o ro /dev/sdb6 /mnt && cat /mnt/root/a-file-of-mine; umount /mnt"
    assert lab.machine.out(kept) == "keep this"
    # It boots the kernel that it had before, and that of the lab goes as well.
    menu = grub.entries(lab.machine.out("cat /boot/grub/grub.cfg"))
    old = grub.entry_of_release(menu, lab.machine.out("uname -r"))
    lab.machine.out(f"grub-reboot '{old}'")
    print(f"reboot: {lab.machine.reboot():.0f} s")
    result = lab.run("tasks/destroy.py", NODE)
    assert (result.failed, result.verdict) == (0, "absent"), result.output[-3000:]
    assert "host kernel: remove" in result.output
    assert lab.machine.out("ls /var/lib/umlaan 2>/dev/null || true") == ""
    assert "umlaan" not in lab.machine.out("ls /boot /etc/grub.d /etc/default/grub.d")
    assert "saved_entry" not in lab.machine.out("grub-editenv list"), "none was set before"
    again = lab.run("tasks/destroy.py", NODE)
    assert (again.changed, again.failed) == (0, 0), again.output[-3000:]
    assert the_hosts_own(lab) ^ SEEN["before"] == set()
