"""A user's own root: interfaces, inittab, sshd and notes, in view of what stands there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from umlaan.agent import blocks
from umlaan.model.lab import HostData, build_lab
from umlaan.plan import guest, userroot
from umlaan.plan.look import IFUP, INTERFACES, NETWORK_MANAGER, NETWORKD, SYSTEMD, Look

KEYS = guest.Secrets("ssh-ed25519 A", "PRIVATE\n", "PUBLIC\n")
LAB = build_lab(
    [
        HostData("@local", False, {}),
        HostData("@uml/node1", True, {"root": "/dev/sdb6", "node.console_root": True}),
    ]
)
NODE = LAB.node("node1")
GIVEN = guest.values(LAB, NODE, "eth0", KEYS)
OWN = GIVEN["node"]
STATIC = "auto eth0\niface eth0 inet static\n    address 192.168.1.101\n    netmask 255.255.255.0\n"


def look(files: dict[str, str], *exists: str) -> Look:
    return Look({k: (0o644, v.encode()) for k, v in files.items()}, frozenset(exists))


def after(found: Look) -> Look:
    """The root after a run."""
    files = dict(found.files)
    for edit in guest.edits(NODE, userroot.files(GIVEN, KEYS, found), found):
        files[edit.file.path] = (edit.file.mode, edit.text.encode())
    return Look(files, found.exists)


def text(found: Look, path: str) -> str:
    return userroot.text_of(found, path)


@pytest.mark.parametrize(
    "prefix", ["address 192.168.1.101/24", "address  192.168.1.101\n netmask 24"]
)
def test_a_stanza_that_says_the_same_stands(prefix: str) -> None:
    mine = (
        f"auto lo\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet static\n {prefix}\n"
    )
    assert userroot.settled(mine, OWN)
    assert INTERFACES not in {
        f.path for f in userroot.files(GIVEN, KEYS, look({INTERFACES: mine}, IFUP))
    }


@pytest.mark.parametrize(
    "mine",
    [
        "auto eth0\niface eth0 inet dhcp\n",
        STATIC.replace("101", "102"),
        STATIC.replace("auto eth0\n", ""),
        STATIC + "iface eth0 inet dhcp\n",
        "",
    ],
)
def test_other_stanzas_of_the_interface_are_put_out_and_a_second_run_changes_nothing(
    mine: str,
) -> None:
    once = after(look({INTERFACES: mine}, IFUP))
    lines = text(once, INTERFACES).split("\n")
    assert lines[0] == blocks.lines_of(guest.MARK)[0]
    assert sum(line.startswith("iface eth0 inet") for line in lines) == 1
    assert after(once) == once


def test_a_stanza_in_a_folder_is_put_out_there_and_the_rest_stays() -> None:
    other = "iface wlan0 inet dhcp\n"
    path = f"{INTERFACES}.d/setup"
    once = after(
        look({INTERFACES: "source interfaces.d/*\n", path: f"iface eth0 inet dhcp\n{other}"}, IFUP)
    )
    assert text(once, path) == f"{userroot.OUT}iface eth0 inet dhcp\n{other}"
    assert text(once, INTERFACES).endswith("source interfaces.d/*\n")
    assert after(once) == once


def test_sysvinit_takes_our_entries_under_the_users_ids() -> None:
    mine = "id:2:initdefault:\nca:12345:ctrlaltdel:/sbin/shutdown -t1 -a -r now\n"
    mine += "1:2345:respawn:/sbin/getty 38400 tty1\n"
    once = after(look({"etc/inittab": mine}, IFUP))
    lines = text(once, "etc/inittab").split("\n")
    assert lines[1] == f"ca:12345:ctrlaltdel:{userroot.HALT}"
    assert lines[2] == f"1:2345:respawn:{userroot.CONSOLE}"
    assert text(once, "etc/inittab").endswith(mine)
    assert after(once) == once


def test_an_inittab_without_ids_is_left_alone() -> None:
    once = after(look({"etc/inittab": "::ctrlaltdel:/sbin/reboot\n"}, IFUP))
    assert text(once, "etc/inittab") == "::ctrlaltdel:/sbin/reboot\n"


def test_systemd_powers_off_at_cad_and_networkd_is_wanted() -> None:
    paths = {
        f.path for f in userroot.files(GIVEN, KEYS, look({}, NETWORKD, SYSTEMD, NETWORK_MANAGER))
    }
    assert {
        "etc/systemd/system/ctrl-alt-del.target",
        "etc/systemd/system/multi-user.target.d/umlaan.conf",
        "etc/systemd/system/getty@tty1.service.d/umlaan.conf",
        "etc/systemd/network/05-umlaan.network",
        "etc/NetworkManager/conf.d/umlaan.conf",
    } <= paths


def test_an_sshd_that_includes_no_snippets_gets_a_block() -> None:
    found = look({"etc/ssh/sshd_config": "Port 22\n"}, IFUP, "etc/ssh/sshd_config.d")
    once = after(found)
    assert text(once, "etc/ssh/sshd_config").endswith("Port 22\n")
    assert "etc/ssh/sshd_config.d/umlaan.conf" not in once.files
    assert after(once) == once


def test_disks_that_a_guest_may_lack_are_told() -> None:
    fstab = "/dev/sda1 / ext4 errors=remount-ro 0 1\n/dev/sda5 none swap sw 0 0\n"
    fstab += "/dev/sda6 /home ext4 nofail 0 2\n"
    lines = userroot.notes(NODE, look({"etc/fstab": fstab}))
    assert len(lines) == 1 and "/dev/sda5 for none" in lines[0]


def test_a_block_that_lost_its_end_takes_nothing_of_the_users() -> None:
    first, _ = blocks.lines_of(guest.MARK)
    once = after(look({"etc/hosts": f"{first}\n127.0.0.1 localhost\n10.0.0.1 mine\n"}, IFUP))
    assert text(once, "etc/hosts").endswith("127.0.0.1 localhost\n10.0.0.1 mine\n")
    assert after(once) == once


def test_bytes_that_are_no_text_survive() -> None:
    found = Look({"etc/hosts": (0o644, b"# \xff\xfe\r\n127.0.0.1 localhost")}, frozenset({IFUP}))
    edit = next(
        e
        for e in guest.edits(NODE, userroot.files(GIVEN, KEYS, found), found)
        if e.file.path == "etc/hosts"
    )
    data = edit.text.encode(errors="surrogateescape")
    assert data.endswith(b"# \xff\xfe\r\n127.0.0.1 localhost")


def test_install_script_keeps_the_first_version_and_writes_through_links(tmp_path: Path) -> None:
    """Run for real on a folder that stands for the root."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hostname").symlink_to("real")
    (tmp_path / "etc" / "real").write_text("mine\n")
    found = look({"etc/hostname": "mine\n"}, IFUP)
    for name in ("node1", "node2"):
        file = guest.GuestFile("etc/hostname", 0o644, f"{name}\n")
        edits = guest.edits(NODE, [file], found)
        script = guest.install_script(edits)
        script = script.replace(guest.PARCEL, f"{tmp_path}/parcel").replace('"/', f'"{tmp_path}/')
        script = script.replace(guest.BESIDE, f"{tmp_path}{guest.BESIDE}")
        script = script.replace("t=/$1", f"t={tmp_path}/$1")
        (tmp_path / "parcel").write_bytes(guest.as_tar(edits))
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "etc" / "hostname").is_symlink()
    assert (tmp_path / "etc" / "real").read_text() == "node2\n"
    assert (tmp_path / guest.BACKUPS / "etc" / "hostname").read_text() == "mine\n"
    assert sorted(p.name for p in (tmp_path / "etc").iterdir()) == ["hostname", "real"]


def test_a_backup_that_was_cut_off_is_made_again_before_the_file_is_replaced(
    tmp_path: Path,
) -> None:
    """The disk is full while the user's file is copied: nothing is replaced, then or later."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("mine\n")
    file = guest.GuestFile("etc/hostname", 0o644, "node1\n")
    edits = guest.edits(NODE, [file], look({"etc/hostname": "mine\n"}, IFUP))
    script = guest.install_script(edits)
    script = script.replace(guest.PARCEL, f"{tmp_path}/parcel").replace('"/', f'"{tmp_path}/')
    script = script.replace(guest.BESIDE, f"{tmp_path}{guest.BESIDE}")
    full = 'cp() { for to; do :; done; : >"$to"; return 1; }\n'
    for before, name in ((full, "mine\n"), ("", "node1\n")):
        (tmp_path / "parcel").write_bytes(guest.as_tar(edits))
        done = subprocess.run(["sh", "-c", before + script], capture_output=True, text=True)
        assert (done.returncode == 0) == (before == ""), done.stderr
        assert (tmp_path / "etc/hostname").read_text() == name
    assert (tmp_path / guest.BACKUPS / "etc/hostname").read_text() == "mine\n"
