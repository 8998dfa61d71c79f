"""The host kernel where a step fails or is cut off, and where grub is not as umlaan leaves it."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from tests.unit.machine_folder import NEW, OLD, OLD_ENTRY, Machine
from tests.unit.test_host_kernel import spec_of, state
from umlaan.agent import boot, bootaway, grub, hostkernel
from umlaan.agent.chamber import BuildError
from umlaan.model.host import LabHost
from umlaan.model.hostkernel import HostBoot
from umlaan.model.kernel import Kernel
from umlaan.model.network import Network
from umlaan.plan import hostkernel as plan


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    one = Machine(tmp_path, monkeypatch)
    one.build()
    return one


def leaving(machine: Machine) -> dict:
    return {**machine.spec, "files": sorted(machine.spec["files"], reverse=True)}


def fails(machine: Machine, tool: str) -> Path:
    """A tool that fails until it is put back by what is returned."""
    path = machine.folder / "bin" / tool
    path.rename(kept := path.with_suffix(".kept"))
    path.write_text("#!/bin/sh\necho 'no space left on device'\nexit 1\n")
    path.chmod(0o755)
    return kept


def mended(kept: Path) -> None:
    kept.rename(kept.with_suffix(""))


def confirmed(machine: Machine) -> dict:
    """Installed, tried, kept; it runs."""
    hostkernel.install(dict(machine.spec))
    spec = spec_of(machine)
    boot.arm(spec)
    back = machine.grub["saved_entry"]
    machine.boot(spec["release"], spec["entry"])
    machine.set_grub(saved_entry=back)
    assert boot.settle({**spec, "checks": []}) == []
    return spec


def test_a_repair_of_the_running_kernel_that_fails_is_taken_up_again(machine: Machine) -> None:
    confirmed(machine)
    (machine.folder / f"boot/initrd.img-{NEW}").unlink()
    (machine.folder / "initramfs-fails").touch()
    with pytest.raises(BuildError, match="no space left"):
        hostkernel.install(dict(machine.spec))
    (machine.folder / "initramfs-fails").unlink()
    found = state(machine)
    assert found["fault"] is None
    assert found["problems"] == [f"install {NEW}, it was cut off the last time"]
    hostkernel.install(dict(machine.spec))
    assert state(machine)["problems"] == []


def test_what_an_install_that_was_cut_off_left_goes_with_the_lab(machine: Machine) -> None:
    (machine.folder / "initramfs-fails").touch()
    with pytest.raises(BuildError):
        hostkernel.install(dict(machine.spec))
    assert (machine.folder / f"boot/vmlinuz-{NEW}").exists()
    assert bootaway.left(leaving(machine))["releases"] == [NEW]
    bootaway.away(leaving(machine))
    assert [path.name for path in (machine.folder / "boot").iterdir()] == ["grub"]
    assert list((machine.folder / "lib/modules").iterdir()) == []


def test_a_module_put_beside_the_kernels_own_is_no_damage(machine: Machine) -> None:
    hostkernel.install(dict(machine.spec))
    (machine.folder / f"lib/modules/{NEW}/kernel/net/dvk.ko").write_text("placed by host_modules")
    assert state(machine)["problems"] == []


def test_the_old_kernel_booted_by_hand_is_the_way_back_again(machine: Machine) -> None:
    spec = confirmed(machine)
    machine.boot(OLD)
    assert plan.decide(state(machine), "never").action == "arm"
    boot.arm(spec)
    assert machine.grub == {"saved_entry": OLD_ENTRY, "next_entry": spec["entry"]}
    assert plan.decide(state(machine), "never").action == "wait"


def test_a_kernel_that_could_not_be_armed_has_not_failed(machine: Machine) -> None:
    hostkernel.install(dict(machine.spec))
    kept = fails(machine, "grub-reboot")
    with pytest.raises(BuildError, match="no space left"):
        boot.arm(spec_of(machine))
    mended(kept)
    # Rebooted meanwhile, by whoever made room.
    (machine.folder / "proc/sys/kernel/random/boot_id").write_text("other\n")
    assert plan.decide(state(machine), "never").action == "arm"


def test_the_kernel_before_stays_where_its_newer_parameters_were_never_tried(
    machine: Machine,
) -> None:
    before = confirmed(machine)["entry"]
    machine.spec["parameters"] = ["quiet"]
    hostkernel.install(dict(machine.spec))
    newer = "6.1.193-umlaan-4567cdef"
    machine.build("newer", newer)
    assert confirmed(machine)["release"] == newer
    assert (machine.folder / f"boot/vmlinuz-{NEW}").exists()
    assert before in grub.menu(machine.spec)


def test_the_list_is_whole_where_the_disk_is_full(machine: Machine) -> None:
    confirmed(machine)
    machine.build("newer", "6.1.193-umlaan-4567cdef")
    entry = confirmed(machine)["entry"]
    listed = Path(grub.list_path(machine.spec)).read_text()
    # No file may grow: what a full disk does.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError):
            boot.prune(machine.spec, {entry})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Path(grub.list_path(machine.spec)).read_text() == listed


def test_a_file_that_overrules_the_saved_default_refuses_before_anything_is_written(
    machine: Machine,
) -> None:
    folder = machine.folder / "etc/default/grub.d"
    folder.mkdir(parents=True)
    (folder / "10-first.cfg").write_text("GRUB_DEFAULT=0\n")
    assert grub.overruled(machine.spec) is None
    (folder / "zz-mine.cfg").write_text('GRUB_TIMEOUT=1\nGRUB_DEFAULT="1>2"\n')
    with pytest.raises(BuildError, match=r"grub\.d/zz-mine\.cfg sets GRUB_DEFAULT"):
        hostkernel.install(dict(machine.spec))
    assert list((machine.folder / "boot").glob("vmlinuz*")) == []
    (folder / "zz-mine.cfg").write_text("GRUB_TIMEOUT=1\n")
    hostkernel.install(dict(machine.spec))
    (folder / "zz-mine.cfg").write_text("GRUB_DEFAULT=0\n")
    with pytest.raises(BuildError, match="sets GRUB_DEFAULT"):
        boot.arm(spec_of(machine))


def test_secure_boot_refuses_before_anything_is_written(machine: Machine) -> None:
    folder = machine.folder / "sys/firmware/efi/efivars"
    folder.mkdir(parents=True)
    variable = folder / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    variable.write_bytes(b"\6\0\0\0\1")
    with pytest.raises(BuildError, match="Secure Boot is on"):
        hostkernel.install(dict(machine.spec))
    assert list((machine.folder / "boot").glob("vmlinuz*")) == []
    variable.write_bytes(b"\6\0\0\0\0")
    hostkernel.install(dict(machine.spec))
    variable.write_bytes(b"\6\0\0\0\1")
    with pytest.raises(BuildError, match="Secure Boot is on"):
        boot.arm(spec_of(machine))


def named(machine: Machine) -> None:
    machine.spec["files"]["/etc/grub.d/42_umlaan"] = f"list={grub.list_path(machine.spec)}\n"


SIMPLE = "gnulinux-simple-6f1d5c2e-0a4b-4c7e-9d53-0d1a6e5b7c01"


@pytest.mark.parametrize(
    ("before", "since", "after"),
    [
        # The user's own saved default comes back; what the user sets meanwhile stays.
        (SIMPLE, None, SIMPLE),
        (SIMPLE, "of-mine-since", "of-mine-since"),
        # One whose kernel is gone: the running one's, which stands in its place already.
        ("gone-since", None, OLD_ENTRY),
    ],
)
def test_a_destroy_gives_back_what_grub_took_by_default(
    machine: Machine, before: str, since: str | None, after: str
) -> None:
    named(machine)
    machine.set_grub(saved_entry=before)
    spec = confirmed(machine)
    machine.boot(OLD)
    if since:
        machine.set_grub(saved_entry=since)
    assert (machine.grub["saved_entry"] == spec["entry"]) == (since is None)
    bootaway.away(leaving(machine))
    assert machine.grub["saved_entry"] == after
    assert not (machine.folder / "state/host-kernel").exists()


@pytest.mark.parametrize("step", ["unlink", "update-grub"])
def test_a_destroy_that_was_cut_off_is_ended_by_the_next(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    named(machine)
    confirmed(machine)
    machine.boot(OLD)
    if step == "unlink":
        real, seen = bootaway.os.unlink, []

        def once(path: str) -> None:
            real(path)
            seen.append(path)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(bootaway.os, "unlink", once)
            bootaway.away(leaving(machine))
    else:
        kept = fails(machine, "update-grub")
        with pytest.raises(BuildError):
            bootaway.away(leaving(machine))
        mended(kept)
    bootaway.away(leaving(machine))
    assert not (machine.folder / "etc/grub.d/42_umlaan").exists()
    assert not (machine.folder / "etc/default/grub.d/umlaan.cfg").exists()
    assert "umlaan" not in (machine.folder / "boot/grub/grub.cfg").read_text()


def test_a_second_lab_does_not_take_grub_from_the_first(machine: Machine) -> None:
    named(machine)
    hostkernel.install(dict(machine.spec))
    assert grub.grub(machine.spec) is None
    other = {**machine.spec, "state_dir": str(machine.folder / "other")}
    said = grub.grub(other)
    assert said is not None and grub.list_path(machine.spec) in said
    with pytest.raises(BuildError, match="a machine has one host kernel"):
        hostkernel.install(other)
    # A lab whose state folder was removed by hand holds nothing.
    Path(grub.list_path(machine.spec)).unlink()
    assert grub.grub(other) is None


def test_a_state_folder_of_any_name_is_found_again(tmp_path: Path) -> None:
    where = LabHost(
        name="@local",
        network=Network(),
        state_dir=f"{tmp_path}/my labs/one [1]",
        cache_dir=str(tmp_path / "cache"),
    )
    spec = plan.spec(Kernel(), HostBoot(), where)
    installed = Path(hostkernel.installed_path(spec, NEW))
    installed.parent.mkdir(parents=True)
    installed.write_text("{}")
    assert list(boot.stamps_of(spec)) == [str(installed)]
    Path(grub.list_path(spec)).write_text("")
    (tmp_path / "grub-mkconfig_lib").write_text(
        "make_system_path_relative_to_its_root() { echo; }\n"
    )
    script = spec["files"][plan.SCRIPT]
    done = subprocess.run(["sh", "-c", script], env={"pkgdatadir": str(tmp_path)}, check=False)
    assert done.returncode == 0
    assert grub.list_of(script) == grub.list_path(spec)


def test_an_install_that_fails_leaves_the_old_kernel_the_default(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any package's update-grub lists what stands in /boot, the newest first.
    (machine.folder / "initramfs-fails").touch()
    with pytest.raises(BuildError):
        hostkernel.install(dict(machine.spec))
    assert (machine.folder / "etc/default/grub.d/umlaan.cfg").exists()
    assert machine.grub["saved_entry"] == OLD_ENTRY
    real = hostkernel.shutil.copyfile

    def full(origin: str, target: str) -> None:
        real(origin, target)
        raise OSError(28, "No space left on device")

    Path(machine.spec["dir"], "linux").write_text("another")
    monkeypatch.setattr(hostkernel.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        hostkernel.put(f"{machine.spec['dir']}/linux", f"{machine.folder}/boot/vmlinuz-x")
    assert list((machine.folder / "boot").glob("vmlinuz-x*")) == []
    assert list((machine.folder / "boot").glob("*new*")) == []


def test_modules_that_were_half_unpacked_go_with_the_lab(machine: Machine) -> None:
    kept = fails(machine, "depmod")
    packed = Path(machine.spec["dir"], "modules.tar.gz")
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(BuildError, match="tar"):
        hostkernel.install(dict(machine.spec))
    mended(kept)
    named(machine)
    bootaway.away(leaving(machine))
    assert list((machine.folder / "lib/modules").iterdir()) == []
