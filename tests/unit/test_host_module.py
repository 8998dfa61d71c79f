"""Modules of the host kernel on a folder that stands for a machine: placed, loaded, taken away."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.machine_folder import NEW, OLD, Machine
from umlaan.agent import loaded, module, placed
from umlaan.agent.chamber import BuildError
from umlaan.agent.index import hash_file
from umlaan.agent.spec import encode
from umlaan.model.host import LabHost
from umlaan.model.hostkernel import HostModule
from umlaan.model.network import Network
from umlaan.plan import module as plan

# What the kernel keeps in /sys/module is made by these two, from the file that it is given.
_LOAD = """#!/bin/sh
echo "$(basename "$0") $*" >>"$MACHINE/calls"
name=small
there="$MACHINE/sys/module/$name"
mkdir -p "$there/parameters" "$there/notes"
grep -ao 'note[0-9]*' "$MACHINE/lib/modules/NEW/extra/small.ko" | tr -d '\\n' \\
    >"$there/notes/.note.gnu.build-id"
echo 0 >"$there/refcnt"
shift
for word; do echo "${word#*=}" >"$there/parameters/${word%%=*}"; done
""".replace("NEW", NEW)
_UNLOAD = """#!/bin/sh
echo "rmmod $*" >>"$MACHINE/calls"
rm -r "$MACHINE/sys/module/$1"
"""


class Host:
    """The machine, a module built for its new kernel, and what the agent is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **data: Any) -> None:
        self.machine = Machine(folder, monkeypatch)
        self.machine.boot(NEW)
        (folder / f"lib/modules/{NEW}").mkdir()
        (folder / "sys/module").mkdir(parents=True)
        for name, text in (("modprobe", _LOAD), ("insmod", _LOAD), ("rmmod", _UNLOAD)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        self.folder = folder
        self.data: dict[str, Any] = {"name": "small", "source": "/small", **data}
        self.build("note1")

    @property
    def spec(self) -> dict[str, Any]:
        where = LabHost(
            name="@local",
            network=Network(),
            state_dir=str(self.folder / "state"),
            cache_dir=str(self.folder / "cache"),
        )
        wanted = HostModule.model_validate(self.data)
        made = plan.spec(wanted, "/small", where, "/none", {}, 16)
        return {**made, "root": str(self.folder), "dir": f"{where.state_dir}/modules/small"}

    def build(self, content: str, release: str = NEW) -> None:
        home = Path(self.spec["dir"])
        home.mkdir(parents=True, exist_ok=True)
        (home / "small.ko").write_bytes(f"\0vermagic={release} SMP\0{content}".encode())
        sha256 = hash_file(str(home / "small.ko"))
        stamp = {"key": sha256, "release": release, "vermagic": f"{release} SMP", "sha256": sha256}
        (home / "stamp.json").write_text(json.dumps(stamp))

    def place(self) -> None:
        placed.place(self.spec)

    def load(self) -> None:
        assert module.main(["load", encode(self.spec)]) == 0

    def away(self) -> list[str]:
        left = placed.left(self.spec)
        placed.away(self.spec)
        assert placed.left(self.spec) == []
        return left

    def problems(self) -> list[str]:
        found = placed.state(self.spec)
        return [*found["problems"], *found["load"]]

    @property
    def extra(self) -> Path:
        return self.folder / f"lib/modules/{NEW}/extra/small.ko"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


LOADED = {"load": True, "parameters": {"major": "33", "level": "{debug}"}}


@pytest.fixture
def kept_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    one = Host(tmp_path, monkeypatch, **LOADED)
    one.place()
    one.load()
    return one


def test_destroy_takes_a_module_from_outside_the_state_folder(host: Host) -> None:
    host.data["places"] = ["/lib/modules/{release}/extra/{file}", "{dvs}/dvk-mod/{file}"]
    host.place()
    assert host.problems() == []
    assert (host.folder / "state/dvs/ioctl/dvk-mod/small.ko").exists()
    assert host.away() == [str(host.extra)]
    assert not host.extra.exists() and not host.extra.parent.exists()
    assert host.machine.calls == [f"depmod -b {host.folder} {NEW}"] * 2


def test_what_was_changed_since_is_left_and_said(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.place()
    host.extra.write_text("the user's own build")
    placed.away(host.spec)
    assert host.extra.read_text() == "the user's own build"
    assert (
        f"{host.extra} stays: it is no longer the file that was placed" in capsys.readouterr().out
    )


def test_what_stood_there_comes_back(host: Host) -> None:
    theirs = host.folder / "usr/src/dvs/dvk-mod/small.ko"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("of the user's tree")
    host.data["places"] = ["/usr/src/dvs/dvk-mod/{file}"]
    host.place()
    # A newer build of ours is not what stood there.
    host.build("note2")
    host.place()
    assert b"note2" in theirs.read_bytes()
    assert host.away() == [str(theirs)]
    assert theirs.read_text() == "of the user's tree"


def test_a_place_that_is_no_longer_wanted_is_left(host: Host) -> None:
    host.place()
    host.data["places"] = ["/opt/{file}"]
    assert host.problems() == [
        f"{host.folder}/opt/small.ko is missing",
        f"{host.extra} is no longer one of its places",
    ]
    host.place()
    assert host.problems() == [] and not host.extra.exists()
    assert host.away() == [f"{host.folder}/opt/small.ko"]


def test_a_module_for_another_kernel_is_not_placed(host: Host) -> None:
    host.build("note1", OLD)
    with pytest.raises(BuildError, match=f"built for {OLD}, the kernel is x"):
        placed.check_vermagic(f"{host.spec['dir']}/small.ko", "x")


def test_a_test_that_fails_places_nothing(host: Host) -> None:
    host.data["tests"] = ["test -e {ko}", "echo no such symbol; false"]
    with pytest.raises(BuildError, match="test failed, not placed: .*exit code 1: no such symbol"):
        host.place()
    assert not host.extra.exists()


def test_it_is_loaded_with_its_parameters_now_and_at_each_boot(kept_loaded: Host) -> None:
    host = kept_loaded
    assert host.machine.calls[-1] == "modprobe small level=16 major=33"
    assert host.problems() == []
    text = (host.folder / "etc/modprobe.d/umlaan-umlaan-small.conf").read_text()
    assert text.endswith("\noptions small level=16 major=33\n")
    assert host.away() == [
        str(host.extra),
        *(str(host.folder / f"etc/{name}/umlaan-umlaan-small.conf") for name in DIRS),
    ]
    assert host.machine.calls[-2:] == ["rmmod small", f"depmod -b {host.folder} {NEW}"]


DIRS = ("modules-load.d", "modprobe.d")


def test_another_value_or_another_build_is_loaded_again(kept_loaded: Host) -> None:
    host = kept_loaded
    (host.folder / "sys/module/small/parameters/level").write_text("1\n")
    (host.folder / "sys/module/small/notes/.note.gnu.build-id").write_bytes(b"note7")
    assert host.problems() == [
        "load it again, the loaded one is another build",
        "load it again, level 1 → 16",
    ]
    host.load()
    assert host.machine.calls[-2:] == ["rmmod small", "modprobe small level=16 major=33"]
    assert host.problems() == []


def test_a_value_that_the_module_sets_itself_is_no_difference(
    kept_loaded: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host, level = kept_loaded, kept_loaded.folder / "sys/module/small/parameters/level"
    with (host.folder / "bin/modprobe").open("a") as script:
        script.write('echo 4294967295 >"$there/parameters/level"\n')
    loaded.unload(host.spec, "")
    host.load()
    assert "small sets level itself: 4294967295, given 16" in capsys.readouterr().out
    assert host.problems() == []
    # The DVS's own programs may set it to anything later on.
    level.write_text("7\n")
    assert host.problems() == []
    # Another wanted value is given to it all the same; or at the next boot, by its file.
    host.data |= {"unload": False, "parameters": {"major": "33", "level": "17"}}
    assert "load it again, level 7 → 17" in host.problems()
    assert module.main(["load", encode(host.spec)]) == 1
    assert host.problems() == ["load it again, level 7 → 17"]
    boot_id = host.folder / "proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True, exist_ok=True)
    boot_id.write_text("another\n")
    assert host.problems() == []
    host.data["unload"] = True
    loaded.unload(host.spec, "")
    host.load()
    assert host.problems() == []
    (host.folder / "sys/module/small/parameters/major").write_text("34\n")
    assert host.problems() == ["load it again, major 34 → 33"]


def test_one_that_cannot_be_unloaded_waits_for_a_reboot(
    kept_loaded: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host = kept_loaded
    host.data |= {"unload": False, "parameters": {"major": "34"}}
    before = len(host.machine.calls)
    assert placed.state(host.spec)["stuck"]
    assert module.main(["load", encode(host.spec)]) == 1
    assert "(major 33 → 34): it is loaded and cannot be unloaded" in capsys.readouterr().err
    # What the next boot loads is written all the same, and the new file is put there.
    conf = host.folder / "etc/modprobe.d/umlaan-umlaan-small.conf"
    assert conf.read_text().endswith("options small major=34\n")
    host.build("note2")
    host.place()
    assert b"note2" in host.extra.read_bytes()
    assert not any(call.startswith("rmmod") for call in host.machine.calls[before:])
    host.away()
    said = "(host_modules.unload is False); it stays loaded until the next boot"
    assert said in capsys.readouterr().out


def test_one_that_the_kernel_does_not_give_up_keeps_nothing_from_going(
    kept_loaded: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host = kept_loaded
    (host.folder / "bin/rmmod").write_text("#!/bin/sh\necho Module small is in use; exit 1\n")
    assert host.away()[0] == str(host.extra) and not host.extra.exists()
    said = "rmmod: Module small is in use; it stays loaded until the next boot"
    assert said in capsys.readouterr().out


def test_a_value_set_by_itself_is_none_after_a_boot_that_was_made_for_it(
    kept_loaded: Host,
) -> None:
    host = kept_loaded
    # A run never gave it this one: nothing is on record of it.
    host.data |= {"unload": False, "parameters": {"major": "33", "level": "16", "debug": "1"}}
    debug = host.folder / "sys/module/small/parameters/debug"
    debug.write_text("4294967295\n")
    for number, verb in enumerate(("arm", "load")):
        assert placed.state(host.spec)["stuck"]
        assert module.main([verb, encode(host.spec)]) == number
        # Still so in this boot; and the next one gives it, by its file.
        assert "load it again, debug 4294967295 → 1" in host.problems()
        boot_id = host.folder / "proc/sys/kernel/random/boot_id"
        boot_id.parent.mkdir(parents=True, exist_ok=True)
        boot_id.write_text(f"another {number}\n")
        assert host.problems() == [] and module.main(["load", encode(host.spec)]) == 0
        (host.folder / f"{host.spec['dir']}.loaded.json").unlink()


def test_the_next_boot_is_made_to_load_what_is_wanted(kept_loaded: Host) -> None:
    host = kept_loaded
    assert not placed.state(host.spec)["stuck"]
    host.data |= {"unload": False, "parameters": {"major": "34"}}
    before = len(host.machine.calls)
    assert module.main(["arm", encode(host.spec)]) == 0
    conf = host.folder / "etc/modprobe.d/umlaan-umlaan-small.conf"
    assert conf.read_text().endswith("options small major=34\n")
    assert host.machine.calls[before:] == []


def test_no_machine_is_rebooted_twice_for_what_a_boot_did_not_change(kept_loaded: Host) -> None:
    host = kept_loaded
    host.data["unload"] = False
    boot_id = host.folder / "proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True, exist_ok=True)
    boot_id.write_text("one\n")
    host.build("note2")
    host.place()
    assert module.main(["arm", encode(host.spec)]) == 0
    assert placed.state(host.spec)["stuck"]
    # As where the initramfs has another build of it.
    boot_id.write_text("two\n")
    assert not placed.state(host.spec)["stuck"]
    # What is said then, run after run.
    for _ in range(2):
        assert module.main(["load", encode(host.spec)]) == 1
        assert not placed.state(host.spec)["stuck"]


def test_one_in_use_is_not_taken_from_its_users(
    kept_loaded: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host = kept_loaded
    (host.folder / "sys/module/small/refcnt").write_text("2\n")
    host.data["parameters"] = {"major": "34"}
    assert placed.state(host.spec)["stuck"]
    before = len(host.machine.calls)
    assert module.main(["load", encode(host.spec)]) == 1
    assert "small (major 33 → 34): it is loaded and in use by 2" in capsys.readouterr().err
    conf = host.folder / "etc/modprobe.d/umlaan-umlaan-small.conf"
    assert conf.read_text().endswith("major=34\n"), "a reboot would load it as it was"
    assert placed.state(host.spec)["loaded"]
    host.build("note2")
    with pytest.raises(BuildError, match="small.ko is to be replaced.* or set host_modules.unload"):
        host.place()
    assert host.machine.calls[before:] == []
    host.away()
    assert "stays loaded until the next boot" in capsys.readouterr().out


def test_one_that_is_not_loaded_is_loaded_and_its_files_are_kept(kept_loaded: Host) -> None:
    host = kept_loaded
    (host.folder / "etc/modprobe.d/umlaan-umlaan-small.conf").write_text("edited")
    loaded.unload(host.spec, "")
    assert host.problems() == [
        "load it, it is not loaded",
        f"{host.folder}/etc/modprobe.d/umlaan-umlaan-small.conf differs",
    ]
    host.load()
    assert host.problems() == []
    # Of another kernel nobody asks how it is loaded.
    host.machine.boot(OLD)
    assert host.problems() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mknod needs root")
def test_a_device_is_made_and_kept(kept_loaded: Host) -> None:
    host = kept_loaded
    host.data["devices"] = {"/dev/small": "1:3"}
    (host.folder / "dev").mkdir()
    wanted = "make /dev/small, character device 1:3"
    conf = host.folder / "etc/tmpfiles.d/umlaan-umlaan-small.conf"
    assert host.problems() == [wanted, f"{conf} is missing"]
    host.load()
    assert host.problems() == []
    assert conf.read_text().endswith("\nc /dev/small 0600 root root - 1:3\n")
    (host.folder / "dev/small").unlink()
    (host.folder / "dev/small").write_text("a file")
    assert module.main(["load", encode(host.spec)]) == 1
    host.data["devices"] = {}
    assert host.problems() == [f"{conf} is no longer wanted"]
    host.load()
    assert not conf.exists()


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ("33", "33", True),
        ("0x21", "33", True),
        ("1", "Y", True),
        ("n", "N", True),
        ("a", "b", False),
    ],
)
def test_values_are_compared_as_the_kernel_writes_them(wanted: str, found: str, same: bool) -> None:
    assert loaded.same(wanted, found) is same


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"parameters": {"a": "1"}}, "parameters, devices: only with load"),
        ({"load": True, "places": []}, "load: needs a place"),
        ({"load": True, "parameters": {"a": "1 b=2"}}, "no blanks and quotes"),
        ({"load": True, "parameters": {"a": "{node}"}}, "unknown {node}"),
        ({"load": True, "devices": {"/dev/dvk": "c 33 0"}}, "pattern"),
    ],
)
def test_bad_data_names_what_is_wrong(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HostModule.model_validate({"name": "dvk", "source": "/x", **data})
