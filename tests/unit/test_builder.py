"""A machine that only builds: which lab hosts it serves, and who then needs a compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import bring
from umlaan.model.base import DataError
from umlaan.model.lab import HostData, Lab, build_lab
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
