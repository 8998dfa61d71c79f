"""The DVS's builds on a tiny tree: by content, in copies, foreign files left, the same bytes."""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import dvs as agent
from umlaan.agent.files import locked
from umlaan.agent.spec import encode
from umlaan.model.dvs import BuildStep, Dvs
from umlaan.model.host import LabHost
from umlaan.model.hostkernel import HostModule
from umlaan.model.network import Network
from umlaan.plan import dvs as plan

MAKEFILE = "all: prog\nprog: prog.c\n\tprintf '%s' \"$(LIBS)\" > prog; cat prog.c >> prog\n"


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "Makefile").write_text(MAKEFILE)
    (tree / "lib" / "prog.c").write_text("int x;\n")
    (tree / ".git").mkdir()
    (tree / ".git" / "HEAD").write_text("ref")
    wanted = Dvs.model_validate(
        {
            "source": str(tree),
            "steps": [{"dir": "lib", "ioctl": {"LIBS": "a"}, "ipc": {"LIBS": "b"}}],
        }
    )
    host = LabHost(
        name="@local",
        network=Network(),
        state_dir=str(tmp_path / "state"),
        cache_dir=str(tmp_path / "cache"),
    )
    return plan.spec(wanted, host, wanted.source)


def build(spec: dict[str, Any]) -> None:
    assert agent.main(["build", encode(spec), "ioctl", "ipc"]) == 0


def why(spec: dict[str, Any]) -> list[str]:
    rows = agent.state(spec)["variants"]
    return [reason for variant in rows for reason in plan.reasons(variant, rows[variant])]


def installed(spec: dict[str, Any], name: str) -> Path:
    return Path(spec["state"]) / name


def test_two_variants_in_copies_and_nothing_the_second_time(spec: dict[str, Any]) -> None:
    assert why(spec) == [
        "DVS ioctl: build, it is not there yet",
        "DVS ipc: build, it is not there yet",
    ]
    build(spec)
    assert installed(spec, "ioctl/lib/prog").read_text() == "aint x;\n"
    assert installed(spec, "ipc/lib/prog").read_text() == "bint x;\n"
    assert not (Path(spec["source"]) / "lib" / "prog").exists()
    assert not installed(spec, "ipc/.git").exists()
    assert why(spec) == []


def test_a_bare_machine_without_a_compiler_can_be_planned_for(spec: dict[str, Any]) -> None:
    spec["cc"] = "no-such-compiler"
    assert agent.state(spec)["compiler"] == "no-such-compiler: missing"
    assert [row.split(":")[0] for row in why(spec)] == ["DVS ioctl", "DVS ipc"]


def test_an_edited_source_names_the_file(spec: dict[str, Any]) -> None:
    build(spec)
    (Path(spec["source"]) / "lib" / "prog.c").write_text("int y;\n")
    assert why(spec) == [
        "DVS ioctl: rebuild, source changed: lib/prog.c",
        "DVS ipc: rebuild, source changed: lib/prog.c",
    ]
    build(spec)
    assert installed(spec, "ipc/lib/prog").read_text() == "bint y;\n"
    assert why(spec) == []


def test_a_damaged_copy_is_installed_again_and_other_files_survive(spec: dict[str, Any]) -> None:
    build(spec)
    installed(spec, "ioctl/lib/prog").write_text("spoilt")
    installed(spec, "ioctl/lib/received.txt").write_text("the user's")
    installed(spec, "dvs.tar.gz").write_bytes(b"short")
    assert why(spec) == [
        "DVS ioctl: install again, lib/prog differ from what was built",
        "DVS tarball: write again, dvs.tar.gz was changed",
    ]
    build(spec)
    assert installed(spec, "ioctl/lib/prog").read_text() == "aint x;\n"
    assert installed(spec, "ioctl/lib/received.txt").read_text() == "the user's"
    assert why(spec) == []


def test_a_variable_that_changed_is_the_reason(spec: dict[str, Any]) -> None:
    build(spec)
    spec["variants"]["ipc"][0]["variables"]["LIBS"] = "c"
    assert why(spec) == ["DVS ipc: rebuild, its make steps changed: lib"]


def test_a_spoilt_cache_is_built_again(spec: dict[str, Any]) -> None:
    build(spec)
    key = agent.state(spec)["variants"]["ipc"]["key"]
    (Path(spec["cache"]) / "dvs" / key / "dvs" / "lib" / "prog").write_text("spoilt")
    shutil.rmtree(installed(spec, "ipc"))
    build(spec)
    assert installed(spec, "ipc/lib/prog").read_text() == "bint x;\n"


def test_a_spoilt_cache_is_replaced_only_under_its_lock(spec: dict[str, Any]) -> None:
    build(spec)
    key = agent.state(spec)["variants"]["ioctl"]["key"]
    home = Path(spec["cache"]) / "dvs" / key
    (home / "dvs/lib/prog").write_text("spoilt")
    shutil.rmtree(installed(spec, "ioctl"))
    with locked(f"{home}.lock", "another lab's install"):
        other = threading.Thread(target=agent.install, args=(spec, "ioctl"))
        other.start()
        other.join(1)
        assert other.is_alive() and (home / "dvs/lib/prog").read_text() == "spoilt"
    other.join(30)
    assert installed(spec, "ioctl/lib/prog").read_text() == "aint x;\n"


def test_a_spoilt_parcel_of_a_builder_is_removed_and_said(spec: dict[str, Any]) -> None:
    build(spec)
    found = agent.state(spec)
    home = Path(spec["cache"]) / "dvs" / found["variants"]["ioctl"]["key"]
    (home / "dvs/lib/prog").write_text("spoilt")
    given = {"source": found["source"], "compiler": found["compiler"]}
    with pytest.raises(SystemExit, match="was not whole and is removed; the next run brings it"):
        agent.install({**spec, "source": "/not/here", "given": given}, "ioctl")
    assert not home.exists()


def test_a_module_placed_in_the_ioctl_copy_is_not_the_trees(spec: dict[str, Any]) -> None:
    module = HostModule(name="dvk", source="kernel:ipc/dvk-mod", places=("{dvs}/lib/{file}",))
    assert module.in_dvs == ["lib/dvk.ko"]
    (Path(spec["source"]) / "lib/dvk.ko").write_text("of another release, as upstream's tree has")
    spec["leave"] = {"ioctl": module.in_dvs}
    build(spec)
    assert not installed(spec, "ioctl/lib/dvk.ko").exists()
    assert installed(spec, "ipc/lib/dvk.ko").exists()
    installed(spec, "ioctl/lib/dvk.ko").write_text("the tested one")
    assert why(spec) == []
    (Path(spec["source"]) / "lib/dvk.ko").unlink()
    build(spec)
    assert installed(spec, "ioctl/lib/dvk.ko").read_text() == "the tested one"
    assert not installed(spec, "ipc/lib/dvk.ko").exists()


def test_the_tarball_has_the_same_bytes_again(spec: dict[str, Any], tmp_path: Path) -> None:
    build(spec)
    first = installed(spec, "dvs.tar.gz").read_bytes()
    shutil.rmtree(spec["cache"])
    shutil.rmtree(spec["state"])
    os.utime(Path(spec["source"]) / "lib" / "prog.c", (1, 1))
    build(spec)
    assert installed(spec, "dvs.tar.gz").read_bytes() == first
    with tarfile.open(installed(spec, "dvs.tar.gz")) as archive:
        assert [m.name for m in archive][:3] == ["dvs", "dvs/lib", "dvs/lib/Makefile"]


def test_a_failing_make_names_variant_and_command(
    spec: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    (Path(spec["source"]) / "lib" / "Makefile").write_text("all:\n\t@echo no such header; exit 3\n")
    with pytest.raises(SystemExit, match=r"DVS ioctl: make -C .*lib LIBS=a: exit code 2"):
        build(spec)
    assert "no such header" in capfd.readouterr().out
    assert not installed(spec, "ioctl.stamp.json").exists()


def test_a_step_may_be_a_command_instead_of_make(spec: dict[str, Any]) -> None:
    step = {"dir": ".", "variables": {"WORD": "one two"}, "command": 'echo "$WORD" >lib/made'}
    given = Dvs.model_validate({"source": spec["source"], "steps": [step]})
    host = LabHost(
        name="@local",
        network=Network(),
        state_dir=spec["state"].removesuffix("/dvs"),
        cache_dir=spec["cache"],
    )
    wanted = plan.spec(given, host, given.source)
    build(wanted)
    assert installed(spec, "ioctl/lib/made").read_text() == "one two\n"
    wanted["variants"]["ipc"][0]["command"] = "echo no rule >&2; exit 4"
    with pytest.raises(SystemExit, match="DVS ipc: .*no rule.*: exit code 4"):
        build(wanted)


def test_a_command_takes_no_targets() -> None:
    with pytest.raises(ValueError, match="give command or targets, not both"):
        BuildStep(dir="lib", command="true", targets=("all",))


def test_a_missing_directory_is_told(spec: dict[str, Any]) -> None:
    spec["variants"]["ioctl"][0]["dir"] = "libs"
    with pytest.raises(SystemExit, match="dvs.steps names libs, which the tree lacks"):
        build(spec)


def test_a_source_as_a_tarball(spec: dict[str, Any], tmp_path: Path) -> None:
    packed = tmp_path / "dvs.tar.xz"
    with tarfile.open(packed, "w:xz") as archive:
        archive.add(spec["source"], "dvs")
    spec["source"] = str(packed)
    build(spec)
    assert installed(spec, "ipc/lib/prog").read_text() == "bint x;\n"
    spec["sha256"] = "0" * 64
    shutil.rmtree(spec["cache"])
    with pytest.raises(SystemExit, match="wanted 0000"):
        build(spec)
