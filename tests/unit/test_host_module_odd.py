"""Modules of the host kernel where a step fails, where the data changes, and under odd names."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.machine_folder import NEW, OLD
from tests.unit.test_host_module import LOADED, Host
from umlaan.agent import loaded, module, placed
from umlaan.agent.spec import encode
from umlaan.model.hostkernel import Builder, HostModule
from umlaan.model.kernel import Kernel
from umlaan.operations import module as operation


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@pytest.fixture
def kept_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    one = Host(tmp_path, monkeypatch, **LOADED)
    one.place()
    one.load()
    return one


def theirs(host: Host) -> Path:
    """A place in the user's own tree, with a file of the user's in it."""
    host.data["places"] = ["/usr/src/dvs/dvk-mod/{file}"]
    path = host.folder / "usr/src/dvs/dvk-mod/small.ko"
    path.parent.mkdir(parents=True)
    path.write_text("of the user's tree")
    return path


def test_what_stood_there_comes_back_after_a_place_that_failed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = theirs(host)
    host.place()
    for content in ("note2", "note3"):
        host.build(content)
        with monkeypatch.context() as patch, pytest.raises(OSError):
            patch.setattr(placed, "put", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            host.place()
    assert b"note1" in path.read_bytes()
    host.away()
    assert path.read_text() == "of the user's tree"


def test_what_stood_there_comes_back_as_it_was(host: Host) -> None:
    path = theirs(host)
    path.chmod(0o750)
    before = path.stat()
    link = path.with_name("link.ko")
    link.symlink_to("small.ko")
    host.data["places"] += ["/usr/src/dvs/dvk-mod/link.ko"]
    host.place()
    host.away()
    now = path.stat()
    assert (now.st_mode, now.st_uid, now.st_mtime) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime,
    )
    assert link.is_symlink() and path.read_text() == "of the user's tree"


def test_the_kernel_before_keeps_its_module(host: Host) -> None:
    (host.folder / f"lib/modules/{OLD}").mkdir()
    host.build("note1", OLD)
    host.place()
    before = host.folder / f"lib/modules/{OLD}/extra/small.ko"
    host.build("note2")
    host.place()
    assert before.exists() and host.extra.exists()
    assert host.problems() == []
    host.build("note3")
    host.place()
    host.away()
    assert not before.exists() and not host.extra.exists()
    assert host.machine.calls[-2:] == [
        f"depmod -b {host.folder} {OLD}",
        f"depmod -b {host.folder} {NEW}",
    ]


def test_one_that_is_no_longer_to_be_loaded_is_not_at_the_next_boot(kept_loaded: Host) -> None:
    host = kept_loaded
    host.data = {"name": "small", "source": "/small"}
    assert [row.rpartition("/")[2] for row in host.problems()] == [
        "umlaan-umlaan-small.conf is no longer wanted",
        "umlaan-umlaan-small.conf is no longer wanted",
    ]
    host.load()
    assert host.problems() == [] and loaded.files_of(host.spec) == []


def test_one_that_was_loaded_after_it_was_placed_is_unloaded_by_destroy(host: Host) -> None:
    host.place()
    host.data |= LOADED
    host.load()
    host.away()
    assert not (host.folder / "sys/module/small").exists()


def test_another_value_is_given_after_a_boot_as_well(kept_loaded: Host) -> None:
    host = kept_loaded
    with (host.folder / "bin/modprobe").open("a") as script:
        script.write('echo 4294967295 >"$there/parameters/level"\n')
    loaded.unload(host.spec, "")
    host.load()
    boot_id = host.folder / "proc/sys/kernel/random/boot_id"
    boot_id.write_text("another\n")
    assert host.problems() == []
    host.data |= {"unload": False, "parameters": {"major": "33", "level": "17"}}
    assert "load it again, level 4294967295 → 17" in host.problems()
    assert module.main(["load", encode(host.spec)]) == 1
    # Its file is written; this boot has not read it.
    assert host.problems() == ["load it again, level 4294967295 → 17"]
    boot_id.write_text("a third\n")
    assert host.problems() == []


def test_a_module_that_is_built_in_is_said(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.data |= LOADED
    host.place()
    # modprobe is content with what modules.builtin names.
    (host.folder / "bin/modprobe").write_text("#!/bin/sh\n")
    assert module.main(["load", encode(host.spec)]) == 1
    assert "small: modprobe loaded nothing: is it built into the kernel" in capsys.readouterr().err


def test_a_file_with_a_dash_in_its_name_is_the_module(tmp_path: Path) -> None:
    assert module.built_file(str(tmp_path), "snd_small.ko") is None
    (tmp_path / "snd-small.ko").touch()
    assert module.built_file(str(tmp_path), "snd_small.ko") == f"{tmp_path}/snd-small.ko"


def test_a_build_folder_with_another_kernel_of_the_same_release_is_not_built_in(
    tmp_path: Path,
) -> None:
    kernel, out = tmp_path / "kernel", tmp_path / "out"
    (out / "include/config").mkdir(parents=True)
    kernel.mkdir()
    (out / "include/config/kernel.release").write_text("6.1.192-mine\n")
    for path in (kernel / "config", out / ".config"):
        path.write_text("CONFIG_SMP=y\n")
    assert module.holds(str(out), str(kernel), "6.1.192-mine")
    assert not module.holds(str(out), str(kernel), "6.1.193-mine")
    (out / ".config").write_text("# CONFIG_SMP is not set\n")
    assert not module.holds(str(out), str(kernel), "6.1.192-mine")


def test_two_lab_hosts_do_not_build_in_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    wanted = HostModule(name="dvk", source="/dvk")
    for lab in ("one", "two"):
        for name in ("node0.example", "@ssh/other"):
            where = SimpleNamespace(
                name=name, lab=lab, state_dir=f"/var/lib/umlaan/{lab}", cache_dir="/cache"
            )
            monkeypatch.setattr(operation, "lab_host", lambda where=where: where)
            monkeypatch.setattr(operation, "carrier", lambda where=where: where)
            monkeypatch.setattr(
                operation,
                "lab",
                lambda lab=lab: SimpleNamespace(
                    name=lab, settings=lambda _: SimpleNamespace(dvs=None)
                ),
            )
            which = Builder(name="b", cache_dir="/b")
            spec = operation.build_spec(wanted, Kernel(arch="x86_64", fragments=()), which)
            found.add(spec["dir"])
            here = operation.build_spec(wanted, Kernel(arch="x86_64", fragments=()), None)
            assert here["dir"] == f"/var/lib/umlaan/{lab}/modules/dvk"
    assert len(found) == 4 and all(path.startswith("/b/built/modules/") for path in found)
    assert json.dumps(sorted(found)).count("@ssh_other") == 2


def test_a_module_that_left_the_data_goes_and_the_others_stay(kept_loaded: Host) -> None:
    host = kept_loaded
    assert placed.left({**host.spec, "keep": ["small"]}) == []
    placed.away({**host.spec, "keep": ["small"]})
    assert host.problems() == []
    other = {**host.spec, "keep": ["smaller"]}
    assert placed.left(other) == [str(host.extra), *loaded.files_of(host.spec)]
    placed.away(other)
    assert not host.extra.exists() and loaded.files_of(host.spec) == []
