"""A machine that only builds: which lab hosts it serves, and who then needs a compiler."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.connectors.util import CommandOutput

from umlaan.agent import bring
from umlaan.model.base import DataError
from umlaan.model.hostkernel import Builder
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.operations import builder
from umlaan.plan import toolchain

KERNEL = {"arch": "x86_64", "fragments": []}


def lab(builders: int, **data: Any) -> Lab:
    rows = [HostData("node0.example", False, {"host_kernel": KERNEL, "root": "/dev/sdb6", **data})]
    rows.append(HostData("@uml/node1", True, {"root": "/dev/sdb6"}))
    rows += [HostData(f"builder{n}", False, {}, is_builder=True) for n in range(builders)]
    return build_lab(rows)


def test_a_builder_carries_no_nodes_and_takes_the_compilers() -> None:
    one = lab(1)
    assert [host.name for host in one.hosts] == ["node0.example"]
    which = one.builder("node0.example")
    assert which is not None and which.name == "builder0"
    here = toolchain.packages(one, "node0.example")
    assert "gcc" not in here and "initramfs-tools" in here
    there = toolchain.packages(one, "builder0")
    assert {"gcc", "make", "libelf-dev"} <= set(there) and "initramfs-tools" not in there


def test_without_a_builder_the_lab_host_builds() -> None:
    one = lab(0)
    assert one.builder("node0.example") is None
    found = set(toolchain.packages(one, "node0.example"))
    assert {"gcc", "libelf-dev", "initramfs-tools"} <= found


def test_the_builder_may_be_named_and_must_exist() -> None:
    which = lab(2, builder="builder1").builder("node0.example")
    assert which is not None and which.name == "builder1"
    with pytest.raises(DataError, match="'other' is no builder; allowed: builder0"):
        lab(1, builder="other")


def test_a_folder_travels_whole_or_not_at_all(tmp_path: Path) -> None:
    origin, target = tmp_path / "origin", tmp_path / "target"
    origin.mkdir()
    (origin / "linux").write_text("new")
    target.mkdir()
    (target / "linux").write_text("old")
    file = tmp_path / "send" / "x.tar.gz"
    bring.pack(str(origin), str(file))
    with pytest.raises(ValueError, match=r"holds no stamp\.json"):
        bring.take(str(file), str(target))
    assert (target / "linux").read_text() == "old"
    (origin / "stamp.json").write_text("{}")
    bring.pack(str(origin), str(file))
    bring.take(str(file), str(target))
    assert (target / "linux").read_text() == "new"
    assert not file.exists()


def test_lab_hosts_that_are_brought_the_same_artifact_do_not_share_a_parcel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LocalConnector:
        pass

    class Host:
        connector = LocalConnector()
        print_prefix = ""

        def __init__(self, name: str = "host") -> None:
            self.name = name
            self.ran: list[str] = []

        def run_shell_command(self, command: str, **_: Any) -> tuple[bool, CommandOutput]:
            self.ran.append(command)
            if " pack " in command:
                Path(shlex.split(command)[-1]).write_text("tar")
            return True, CommandOutput([])

        def put_file(self, *_: str) -> bool:
            return True

    (tmp_path / "send").mkdir()
    which = Builder(name="b", cache_dir=str(tmp_path))
    parcels = []
    for name, on in (("one", "a"), ("one", "@ssh/b"), ("two", "a")):
        source = Host()
        monkeypatch.setattr(builder, "builder_host", lambda _, source=source: source)
        monkeypatch.setattr(builder, "carrier", lambda _, on=on: Host(on))
        monkeypatch.setattr(builder, "agent", lambda _: "agent")
        monkeypatch.setattr(builder, "lab", lambda name=name: SimpleNamespace(name=name))
        bring = builder.Bring(which, "kernel", "/built/kernels/abc", f"{tmp_path}/kernels/abc")
        assert bring.execute(None, Host(), {})[0]  # type: ignore[arg-type]
        parcels.append(source.ran[-1].removeprefix("rm -f "))
    assert len(set(parcels)) == 3
