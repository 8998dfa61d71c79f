"""The host kernel's agent on a folder that stands for a machine: installed, tried, kept or left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.machine_folder import MENU, NEW, OLD, OLD_ENTRY, UUID, Machine
from umlaan.agent import boot, bootaway, grub, hostkernel
from umlaan.agent.chamber import BuildError
from umlaan.plan import hostkernel as plan


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    one = Machine(tmp_path, monkeypatch)
    one.build()
    return one


def state(machine: Machine) -> dict:
    return hostkernel.state(dict(machine.spec))


def spec_of(machine: Machine) -> dict:
    found = state(machine)
    return {**machine.spec, "entry": found["entry"], "release": found["kernel"]["release"]}


def test_the_menu_of_debian_is_read_with_its_submenus() -> None:
    menu = grub.entries(MENU)
    assert list(menu) == [
        f"gnulinux-simple-{UUID}",
        OLD_ENTRY,
        f"gnulinux-advanced-{UUID}>gnulinux-{OLD}-recovery-{UUID}",
    ]
    assert menu[OLD_ENTRY].startswith(f"/boot/vmlinuz-{OLD} root=")
    assert grub.entry_of_release(menu, OLD) == OLD_ENTRY
    assert grub.entry_of_release(menu, "5.10") is None


def test_a_menu_without_ids_is_named_by_titles() -> None:
    text = 'menuentry "first boot" {\n    linux /vmlinuz-5 root=/dev/sda1\n}\n'
    assert grub.entries(text) == {"first boot": "/vmlinuz-5 root=/dev/sda1"}


def test_install_puts_all_beside_the_old_kernel_and_makes_it_the_saved_default(
    machine: Machine,
) -> None:
    assert state(machine)["problems"] == [f"install {NEW}, not there yet"]
    hostkernel.install(dict(machine.spec))
    here = machine.folder
    assert (here / f"boot/vmlinuz-{NEW}").read_text() == "linux kernel"
    assert (here / f"boot/System.map-{NEW}").exists() and (here / f"boot/config-{NEW}").exists()
    assert (here / f"lib/modules/{NEW}/kernel/net/tun.ko").exists()
    assert machine.grub["saved_entry"] == OLD_ENTRY
    found = state(machine)
    assert found["problems"] == []
    assert machine.calls[0] == f"grub-set-default {OLD_ENTRY}"
    assert f"update-initramfs -c -k {NEW}" in machine.calls
    assert machine.calls[-1] == "update-grub"
    assert found["entry"] in grub.menu(machine.spec)


def test_nothing_is_made_twice(machine: Machine) -> None:
    hostkernel.install(dict(machine.spec))
    before = len(machine.calls)
    hostkernel.install({**machine.spec, "parameters": ["net.ifnames=0", "quiet"]})
    # Other parameters are another entry: grub's menu alone is made again.
    assert machine.calls[before:] == ["update-grub"]
    rows = Path(grub.list_path(machine.spec)).read_text().splitlines()
    assert [row.split()[1:] for row in rows] == [
        [NEW, "initrd", "panic=10", "net.ifnames=0"],
        [NEW, "initrd", "panic=10", "net.ifnames=0", "quiet"],
    ]


@pytest.mark.parametrize(
    ("path", "row"),
    [
        (f"boot/vmlinuz-{NEW}", f"/boot/vmlinuz-{NEW} is not the one that was built"),
        (f"boot/initrd.img-{NEW}", f"/boot/initrd.img-{NEW} is missing"),
        (f"lib/modules/{NEW}/kernel/net/tun.ko", f"/lib/modules/{NEW} is not whole"),
        ("etc/grub.d/42_umlaan", "/etc/grub.d/42_umlaan is missing"),
    ],
)
def test_what_was_damaged_is_said_and_repaired(machine: Machine, path: str, row: str) -> None:
    hostkernel.install(dict(machine.spec))
    if "vmlinuz" in path:
        (machine.folder / path).write_text("damaged")
    else:
        (machine.folder / path).unlink()
    assert state(machine)["problems"] == [row]
    hostkernel.install(dict(machine.spec))
    assert state(machine)["problems"] == []


def test_an_initramfs_that_fails_leaves_no_whole_kernel_and_no_entry(machine: Machine) -> None:
    (machine.folder / "initramfs-fails").touch()
    with pytest.raises(BuildError, match="update-initramfs: E: no space left"):
        hostkernel.install(dict(machine.spec))
    assert state(machine)["problems"] == [f"install {NEW}, it was cut off the last time"]
    assert "umlaan-" not in (machine.folder / "boot/grub/grub.cfg").read_text()
    (machine.folder / "initramfs-fails").unlink()
    hostkernel.install(dict(machine.spec))
    assert state(machine)["problems"] == []


def test_no_entry_to_go_back_to_refuses_before_anything_is_written(machine: Machine) -> None:
    machine.boot("5.10.0-direct")
    with pytest.raises(BuildError, match="no entry for the running kernel 5.10.0-direct"):
        hostkernel.install(dict(machine.spec))
    assert list((machine.folder / "boot").glob("vmlinuz*")) == []


def test_the_running_kernels_release_with_another_content_is_refused(machine: Machine) -> None:
    machine.boot(NEW)
    assert "running one's release" in state(machine)["fault"]


def tried(machine: Machine) -> dict:
    """Installed, armed; what grub does at the boot is the caller's."""
    hostkernel.install(dict(machine.spec))
    spec = spec_of(machine)
    assert plan.decide(state(machine), "when_needed").action == "trial"
    boot.arm(spec)
    assert machine.grub == {"saved_entry": OLD_ENTRY, "next_entry": spec["entry"]}
    return spec


def test_a_kernel_that_comes_up_and_passes_its_checks_is_confirmed(machine: Machine) -> None:
    spec = tried(machine)
    machine.boot(NEW, spec["entry"])
    machine.set_grub(saved_entry=OLD_ENTRY)
    assert plan.decide(state(machine), "never").action == "settle"
    assert boot.settle({**spec, "checks": ["true", "echo fine"]}) == []
    assert machine.grub["saved_entry"] == spec["entry"]
    assert plan.decide(state(machine), "never").action == "none"


def test_a_kernel_that_panics_is_failed_and_not_tried_again(machine: Machine) -> None:
    spec = tried(machine)
    # grub forgets the one-shot before it boots; ten seconds later the saved default runs.
    machine.set_grub(saved_entry=OLD_ENTRY)
    (machine.folder / "proc/sys/kernel/random/boot_id").write_text("other\n")
    assert plan.decide(state(machine), "when_needed").action == "settle"
    assert boot.settle(spec) == [f"the machine came back with {OLD}"]
    decision = plan.decide(state(machine), "when_needed")
    assert decision.action == "failed"
    assert f"{NEW} did not come up when tried" in decision.text
    assert f"running {OLD}, the next boot takes {OLD} (entry {OLD_ENTRY})" in decision.text
    assert machine.grub == {"saved_entry": OLD_ENTRY}
    # Another parameter is another trial.
    machine.spec["parameters"] = ["quiet"]
    hostkernel.install(dict(machine.spec))
    assert plan.decide(state(machine), "when_needed").action == "trial"


def test_a_kernel_that_fails_its_checks_is_not_confirmed(machine: Machine) -> None:
    spec = tried(machine)
    machine.boot(NEW, spec["entry"])
    machine.set_grub(saved_entry=OLD_ENTRY)
    failed = boot.settle({**spec, "checks": ["true", "echo no bridge; exit 3"]})
    assert failed == ["echo no bridge; exit 3: exit code 3: no bridge"]
    assert machine.grub["saved_entry"] == OLD_ENTRY
    record = json.loads(Path(boot.trial_path(machine.spec)).read_text())
    assert record["state"] == "refused"
    # It runs still, but the next boot is the old kernel's.
    said = plan.failure(state(machine))
    assert f"{NEW} did not pass its checks" in said and "still running it" in said
    assert f"the next boot takes {OLD} (entry {OLD_ENTRY})" in said


def test_other_parameters_of_the_running_kernel_are_told_by_their_entries(
    machine: Machine,
) -> None:
    spec = tried(machine)
    machine.boot(NEW, spec["entry"])
    machine.set_grub(saved_entry=OLD_ENTRY)
    assert boot.settle({**spec, "checks": []}) == []
    before = spec["entry"]
    machine.spec["parameters"] = ["quiet"]
    hostkernel.install(dict(machine.spec))
    after = spec_of(machine)["entry"]
    decision = plan.decide(state(machine), "never")
    assert decision.action == "arm"
    assert f"running {NEW} by entry {before}, wanted by entry {after}" in decision.text
    assert f"running {NEW}, wanted {NEW}" not in decision.text
    # Tried, and back with the same kernel's old entry: that is what the next boot takes.
    boot.arm(spec_of(machine))
    machine.boot(NEW, before)
    (machine.folder / "proc/sys/kernel/random/boot_id").write_text("other\n")
    machine.set_grub(saved_entry=before)
    found = plan.decide(state(machine), "never")
    assert found.action == "settle"
    assert f"{NEW} was tried by entry {after}, it runs by entry {before}" in found.text
    assert boot.settle(spec_of(machine)) == [f"the machine came back with {NEW} by entry {before}"]
    said = plan.decide(state(machine), "never")
    assert said.action == "failed"
    assert f"the next boot takes {NEW} (entry {before})" in said.text


def test_a_run_that_was_cut_off_after_arming_waits_for_the_boot(machine: Machine) -> None:
    spec = tried(machine)
    assert plan.decide(state(machine), "never").action == "wait"
    assert plan.decide(state(machine), "when_needed").action == "trial"
    assert plan.decide(state(machine), "when_needed", here=True).action == "wait"
    assert spec["entry"] in machine.grub["next_entry"]


def test_grub_that_cannot_write_is_refused(machine: Machine) -> None:
    hostkernel.install(dict(machine.spec))
    (machine.folder / "fs").write_text("btrfs\n")
    with pytest.raises(BuildError, match="/boot/grub is on btrfs, where grub cannot write"):
        boot.arm(spec_of(machine))


def test_the_kernel_before_the_last_is_removed_once_the_new_one_is_confirmed(
    machine: Machine,
) -> None:
    releases = [f"6.1.192-umlaan-{n}" for n in range(3)]
    back = OLD_ENTRY
    for release in releases:
        machine.build(release, release)
        hostkernel.install(dict(machine.spec))
        spec = spec_of(machine)
        boot.arm(spec)
        machine.boot(release, spec["entry"])
        machine.set_grub(saved_entry=back)
        assert boot.settle(spec) == []
        back = spec["entry"]
    there = sorted(p.name for p in (machine.folder / "boot").glob("vmlinuz-*"))
    assert there == [f"vmlinuz-{release}" for release in releases[1:]]
    assert not (machine.folder / f"lib/modules/{releases[0]}").exists()
    assert releases[0] not in (machine.folder / "boot/grub/grub.cfg").read_text()


def test_without_grub_it_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "does not boot by grub" in str(grub.grub(machine.spec))


def leaving(machine: Machine) -> dict:
    """The spec of a lab that is destroyed."""
    return {**machine.spec, "files": sorted(machine.spec["files"], reverse=True)}


def named(machine: Machine) -> None:
    """grub's script names the lab's list, as the real one does."""
    machine.spec["files"]["/etc/grub.d/42_umlaan"] = f"list={grub.list_path(machine.spec)}\n"


def test_a_destroyed_lab_takes_its_kernel_and_the_menus_default_away(machine: Machine) -> None:
    named(machine)
    assert bootaway.left(leaving(machine))["state"] is False
    spec = tried(machine)
    machine.boot(NEW, spec["entry"])
    machine.set_grub(saved_entry=OLD_ENTRY)
    assert boot.settle({**spec, "checks": []}) == []
    assert bootaway.left(leaving(machine))["running"] == NEW
    with pytest.raises(BuildError, match="boot another kernel first"):
        bootaway.away(leaving(machine))
    assert (machine.folder / f"boot/vmlinuz-{NEW}").exists()
    machine.boot(OLD)
    (machine.folder / f"boot/vmlinuz-{OLD}").write_text("the distribution's")
    found = bootaway.left(leaving(machine))
    assert (found["releases"], found["running"], len(found["files"])) == ([NEW], None, 2)
    # What the first destroy, while it ran, took away.
    folder = Path(leaving(machine)["state_dir"])
    for path in folder.iterdir():
        if path.name != "host-kernel":
            shutil.rmtree(path)
    bootaway.away(leaving(machine))
    assert not folder.exists()
    assert [path.name for path in (machine.folder / "boot").glob("vmlinuz-*")] == [f"vmlinuz-{OLD}"]
    assert list((machine.folder / "lib/modules").iterdir()) == []
    # None was set before; one that stayed would keep the machine from its next packaged kernel.
    assert "saved_entry" not in machine.grub
    assert not (machine.folder / "etc/grub.d/42_umlaan").exists()
    assert not (machine.folder / "etc/default/grub.d/umlaan.cfg").exists()
    assert machine.calls[-1] == "update-grub"
    assert "umlaan" not in (machine.folder / "boot/grub/grub.cfg").read_text()
    assert bootaway.left(leaving(machine)) == {
        "releases": [],
        "files": [],
        "running": None,
        "state": False,
    }


def test_another_labs_script_in_grub_is_not_ours(machine: Machine) -> None:
    hostkernel.install(dict(machine.spec))
    (machine.folder / "etc/grub.d/42_umlaan").write_text("list=/var/lib/umlaan/other/entries\n")
    assert bootaway.left(leaving(machine))["files"] == []
