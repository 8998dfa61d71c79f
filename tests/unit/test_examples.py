"""The examples are data alone: they load as labs, and say what their pages say."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.plan import dvssides
from umlaan.plan import node as node_plan

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
    assert "exec chrt -f 1 ./lz4tcp_proxy_bat -bBZ -n node1 -i 1" in run
    up = sides[2]["files"]["/etc/umlaan/dvs/up"]
    assert "./test_dvs_init -u -n 2 -D 0 -C TEST_CLUSTER" in up
    assert "look /proc/dvs/info" in up
    assert made.nodes[0].kernel.toolchain == made.settings("@local").dvs.toolchain  # type: ignore[union-attr]


def test_loop_programs_are_made_for_every_pair_in_both_directions(tmp_path: Path) -> None:
    made = lab("dvs").settings("@local")
    dvs, programs = made.dvs, made.measure.programs
    assert dvs is not None and programs.loop_nodes is not None
    assert set(programs.loop_nodes) == {(a, b) for a in range(3) for b in range(3) if a != b}
    folder = tmp_path / "dvk-proxies"
    (folder / "test").mkdir(parents=True)
    rule = "%: %.c\n\tcp $< $@; echo $(LIBS) >>$@\n"
    (folder / "test/Makefile").write_text(rule)
    for name in ("loop_r-s_server", "loop_sr_client", "loop_copy_server", "loop_copy_client"):
        (folder / f"test/{name}.c").write_text("#define \tRMTNODE\t1\nint a;\n")
    steps = [step for step in dvs.steps if step.command and "RMTNODE" in step.command]
    for step in steps:
        subprocess.run(
            ["sh", "-ec", step.command or ""],
            cwd=tmp_path / step.dir,
            env={**os.environ, **step.make_variables("ipc")},
            check=True,
            capture_output=True,
        )
    assert len(steps) == len(programs.loop_nodes)
    for server, client in programs.loop_nodes:
        there = tmp_path / programs.loop_dir.format(server=server, client=client)
        for program, remote in (("loop_copy_server", client), ("loop_sr_client", server)):
            library = "../../dvk-lib/libdvkipc.so"
            wanted = f"#define \tRMTNODE\t{remote}\nint a;\n{library}\n"
            assert (there / program).read_text() == wanted


def test_the_buffer_in_force_is_read_from_the_dvs_itself(tmp_path: Path) -> None:
    programs = lab("dvs").settings("@local").measure.programs
    (tmp_path / "info").write_text("max_copy_buf=65536\nmax_copy_len=1048576\ndbglvl=0\n")
    assert programs.buffer is not None
    command = programs.buffer.format(state=tmp_path)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "1048576\n"


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
    assert "{{" not in up
    assert "./test_dvs_init -n 0 -D 0 -C TEST_CLUSTER" in up and "ip netns" not in up
    module = made.settings("@local").host_modules[0]
    # The tree itself holds a dvk.ko of another release there.
    assert module.in_dvs == ["dvk-mod/dvk.ko"]
    assert module.load and module.parameters["dvk_major"] == "33"
    assert module.devices == {"/dev/dvk": "33:0"}
    run = side["files"][f"{side['folder']}/dvs-proxy-node1/run"]
    assert "exec taskset -c 0 chrt -f 1 ./lz4tcp_proxy_bat -bBZ -n node1 -i 1" in run
    # The UML is launched in the PID namespace of the DC that dc_init makes of its file.
    assert f"./dc_init {side['folder']}/dc0.cfg" in up
    assert "memory 512;" in side["files"][f"{side['folder']}/dc0.cfg"]
    assert node_plan.dc_file(made, node) == (f"{side['tree']}/dvs-apps/dc_init/DC0.sh", True)


@pytest.mark.parametrize("name", ["dvs", "dvs-host"])
def test_examples_hold_data_and_no_script(name: str) -> None:
    files = [p for p in (REPO / f"examples/{name}").rglob("*") if p.is_file()]
    kept = [str(p.relative_to(REPO)) for p in files if "__pycache__" not in p.parts]
    assert sorted(kept) == [
        f"examples/{name}/group_data/all.py",
        f"examples/{name}/inventory.py",
    ]
