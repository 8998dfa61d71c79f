"""Modules of the host kernel where a step fails, where the data changes, and under odd names."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.test_host_module import LOADED, Host
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
