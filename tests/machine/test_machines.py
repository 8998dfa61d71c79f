"""The machines themselves: several on one network, rebooted, switched off, gone without a trace."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.machine.machine import Underlay

pytestmark = pytest.mark.timeout(900)


def test_two_lab_hosts_see_each_other_and_leave_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"of the disk".ljust(1 << 20, b"\0"))
    with Underlay() as under:
        one, two = under.machine("one", {"/dev/sdb6": disk}), under.machine("two")
        for machine in (one, two):
            machine.start()
        for machine in (one, two):
            machine.wait()
        # Each has its own network, control groups and services.
        one.out(f"ping -c 1 -W 30 {two.address}")
        two.out(f"ping -c 1 -W 30 {one.address}")
        assert [m.out("hostname") for m in (one, two)] == ["one", "two"]
        two.out("systemctl restart systemd-journald")
        assert one.out("systemctl is-active ssh systemd-journald").split() == ["active"] * 2
        assert one.out("head -c 11 /dev/sdb6") == "of the disk"

        one.out("ip link add br7 type bridge; echo kept >/root/kept; sync")
        before, other = one.boot_id(), two.boot_id()
        one.reboot()
        # A network made by hand is gone with its boot, the disk is not.
        assert one.out("ip -br link show type bridge; cat /root/kept") == "kept"
        one.kill()
        one.start()
        one.wait(other_than=before)
        assert one.out("cat /root/kept") == "kept" and two.boot_id() == other

        device, port = one.disks["/dev/sdb6"].device, one.port
        processes = [one.process, two.process, one.door, two.door]
    assert all(process is None or process.poll() is not None for process in processes)
    assert not under.folder.exists()
    attached = subprocess.run(
        ["losetup", "--noheadings", "-O", "BACK-FILE", device], text=True, capture_output=True
    )
    assert str(disk) not in attached.stdout
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    for top in ("systemd", "unified", "."):
        assert not [*Path("/sys/fs/cgroup", top).glob(f"umlaan-test-{os.getpid()}-*")]
