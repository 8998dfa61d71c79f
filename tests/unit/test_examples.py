"""The examples are data alone: they load as labs, and say what their pages say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.plan import dvssides

REPO = Path(__file__).resolve().parents[2]


def lab(name: str) -> Lab:
    """As pyinfra reads it: the repository's group_data first, the example's over it."""
    data: dict[str, Any] = {}
    for path in (REPO / "group_data/all.py", REPO / f"examples/{name}/group_data/all.py"):
        found = runpy.run_path(str(path)).items()
        data.update(
            {k: v for k, v in found if not k.startswith("_") and k not in ("runpy", "Path")}
        )
    hosts = runpy.run_path(str(REPO / f"examples/{name}/inventory.py"))
    rows = [HostData(host, False, data) for host in hosts["node0"]]
    return build_lab(rows + [HostData(host, True, data) for host in hosts["uml"]])


def test_the_dvs_between_uml_nodes_alone() -> None:
    made = lab("dvs")
    sides = dvssides.sides(made)
    assert [(s["name"], s["place"]) for s in sides.values()] == [
        ("node0", "guest"),
        ("node1", "guest"),
        ("node2", "guest"),
    ]
    run = sides[2]["files"]["/etc/umlaan/dvs/dvs-proxy-node1/run"]
    assert "cd /usr/src/dvs/dvk-proxies" in run
    assert "exec ./lz4tcp_proxy_bat -bBZ -n node1 -i 1" in run
    up = sides[2]["files"]["/etc/umlaan/dvs/up"]
    assert "./test_dvs_init -u -n 2 -D 0 -C TEST_CLUSTER" in up
    assert "look /proc/dvs/info" in up
    assert made.nodes[0].kernel.toolchain == made.settings("@local").dvs.toolchain  # type: ignore[union-attr]


def test_the_procedure_to_the_letter() -> None:
    made = lab("dvs-host")
    host, node = made.hosts[0], made.node("node1")
    assert host.network.namespace is None and host.number == 0
    assert (str(host.network.address), node.tap) == ("192.168.1.10/24", "HTAP")
    assert (node.root_path, str(node.address), node.settings.mem) == (
        "/dev/sdb6",
        "192.168.1.101",
        "1024M",
    )
    side = dvssides.sides(made)[0]
    up = side["files"][f"{side['folder']}/up"]
    assert "insmod ../dvk-mod/dvk.ko dvk_major=33" in up and "{{" not in up
    assert "./test_dvs_init -n 0 -D 0 -C TEST_CLUSTER" in up and "ip netns" not in up
    assert made.settings("@local").host_modules[0].file == "dvk.ko"


@pytest.mark.parametrize("name", ["dvs", "dvs-host"])
def test_examples_hold_data_and_no_script(name: str) -> None:
    files = [p for p in (REPO / f"examples/{name}").rglob("*") if p.is_file()]
    kept = [str(p.relative_to(REPO)) for p in files if "__pycache__" not in p.parts]
    assert sorted(kept) == [
        f"examples/{name}/group_data/all.py",
        f"examples/{name}/inventory.py",
    ]
