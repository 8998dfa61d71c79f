"""The sides of a lab: who is joined with whom, by which ports, where everything stands."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from umlaan.model.dvs import Programs
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.plan import dvssides, node

SAMPLE: dict[str, Any] = runpy.run_path(
    str(Path(__file__).resolve().parents[2] / "group_data/all.py")
)["dvs"]


def lab(*numbers: int, host_dvk: bool = True, **data: Any) -> Lab:
    shared = {"dvs": SAMPLE, "host_dvk": host_dvk, **data}
    rows = [HostData("@local", False, shared)]
    rows += [HostData(f"@uml/node{n}", True, shared) for n in numbers]
    return build_lab(rows)


def test_a_proxy_for_each_pair_and_ports_that_meet() -> None:
    sides = dvssides.sides(lab(1, 2, 3))
    assert sorted(sides) == [0, 1, 2, 3]
    pairs = {(n, p["number"]) for n, side in sides.items() for p in side["peers"]}
    assert pairs == {(a, b) for a in range(4) for b in range(4) if a != b}
    for number, side in sides.items():
        for peer in side["peers"]:
            back = next(p for p in sides[peer["number"]]["peers"] if p["number"] == number)
            # The DVS's own rule: listen on base + remote, connect to base + own.
            assert (peer["port"], peer["remote_port"]) == (3000 + peer["number"], 3000 + number)
            assert back["port"] == peer["remote_port"] and back["remote_port"] == peer["port"]


def test_another_base_port_reaches_the_proxies_that_take_one() -> None:
    side = dvssides.sides(lab(1, 2, network={"proxy_base_port": 4000}))[0]
    assert [peer["port"] for peer in side["peers"]] == [4001, 4002]
    run = side["files"][f"{side['folder']}/dvs-proxy-node1/run"]
    assert "export DVS_PROXY_PORT=4000\n" in run


def test_the_lab_host_is_node0_inside_the_labs_namespace() -> None:
    made = lab(1, lab="mine", state_dir="/srv/mine")
    host, guest = dvssides.sides(made)[0], dvssides.sides(made)[1]
    assert (host["place"], guest["place"]) == ("host", "guest")
    assert host["state"] == "/srv/mine/run/dvs" and guest["state"] == "/run/sample-dvs"
    assert host["dcs"][0]["file"] == "/srv/mine/run/DC0.sh"
    assert guest["dcs"][0]["file"] == "/run/umlaan/DC0.sh"
    assert host["shell"] == [] and guest["shell"][:4] == ["ip", "netns", "exec", "mine"]
    up = host["files"]["/srv/mine/services/up"]
    assert 'exec ip netns exec mine "$0"' in up
    assert "export DVS_STATE=/srv/mine/run/dvs" in up
    assert "./test_dvs_init -n 0 -D 0 -C DVS" in up
    assert "cd /srv/mine/dvs/ioctl/dvk-tests" in up and "dmesg" not in up
    assert "ip netns" not in guest["files"]["/etc/umlaan/dvs/up"]
    assert "dmesg -n 1" in guest["files"]["/etc/umlaan/dvs/up"]


def test_two_labs_on_one_machine_share_nothing() -> None:
    one = dvssides.sides(lab(1, lab="one"))[0]
    two = dvssides.sides(lab(1, lab="two"))[0]
    for key in ("state", "run", "folder", "tree", "log", "namespace"):
        assert one[key] != two[key]
    assert one["dcs"][0]["file"] != two["dcs"][0]["file"]


@pytest.mark.parametrize("namespace", ["umlaan", None])
def test_the_sample_trees_programs_listen_on_the_labs_address_alone(namespace: str | None) -> None:
    """With the host's own network they listened on every address of it, for anybody."""
    made = dvssides.sides(lab(1, network={"namespace": namespace}))
    for number, address in ((0, "192.168.1.100"), (1, "192.168.1.101")):
        side = made[number]
        for name in ("up", f"dvs-proxy-node{1 - number}/run"):
            assert f"export DVS_ADDRESS={address}\n" in side["files"][f"{side['folder']}/{name}"]


def test_the_procedures_way_has_no_namespace() -> None:
    side = dvssides.sides(lab(1, network={"namespace": None}))[0]
    assert not any("ip netns" in text for text in side["files"].values())


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_lab_of_uml_nodes_alone(count: int) -> None:
    made = lab(*range(count), host_dvk=False)
    sides = dvssides.sides(made)
    assert sorted(sides) == list(range(count))
    assert {side["place"] for side in sides.values()} == {"guest"}
    assert all(len(side["peers"]) == count - 1 for side in sides.values())
    assert dvssides.hub(made) == 0


def test_nodes_of_another_dc_are_connected_but_not_added() -> None:
    rows = [
        HostData("@local", False, {"dvs": SAMPLE}),
        HostData("@uml/node1", True, {"dvs": SAMPLE}),
        HostData("@uml/node2", True, {"dvs": SAMPLE, "node": {"dcid": 3}}),
    ]
    sides = dvssides.sides(build_lab(rows))
    assert [dc["dcid"] for dc in sides[0]["dcs"]] == [0, 3]
    assert {p["name"]: p["dcids"] for p in sides[1]["peers"]} == {"node0": [0], "node2": []}
    assert "test_add_node 3 2" in sides[0]["files"][f"{sides[0]['folder']}/dvs-join/run"]
    assert "test_add_node 0 2" not in sides[0]["files"][f"{sides[0]['folder']}/dvs-join/run"]


def test_scripts_are_sound_shell() -> None:
    for side in dvssides.sides(lab(1, 2)).values():
        for kind in ("own", "runit", "systemd"):
            for path, text in dvssides.files_of(side, kind).items():
                if path.endswith(".service"):
                    assert "ExecStart=/" in text and "KillMode=process" in text
                    continue
                done = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True)
                assert done.returncode == 0, f"{path}: {done.stderr}"


def test_without_a_dvs_there_are_no_sides() -> None:
    assert dvssides.sides(lab(1, dvs=None)) == {}


def test_a_question_for_32_nodes_fits_one_argument() -> None:
    import json

    sides = dvssides.sides(lab(*range(32), host_dvk=False))
    # Linux's limit for one argument is 128 KiB.
    assert len(json.dumps({"sides": [dvssides.light(s) for s in sides.values()]})) < 131_072
    assert len(json.dumps(dvssides.asked(sides[0]))) < 131_072


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("init", "./test_dvs_init -n {nod}", "unknown {nod}; allowed: address, base_port"),
        ("proxy", "./p {", "a brace of the command itself is doubled"),
        ("environment", {"X": "{size}"}, "unknown {size}"),
        ("proxy_restart", "machine", "'proxy', 'node' or 'lab'"),
        ("init", "./test_dvs_init {config}", "unknown {config}"),
        ("dc_file", "/run/{name}/DC{dcid}.sh", "unknown {name}; allowed: dcid, dest, run"),
        ("host_state", "/run/{dcid}", "unknown {dcid}; allowed: dest, run"),
        ("dc_config", {"memory": 512}, "dc does not take it; for example ./dc_init {config}"),
        ("dc_config", {"Memory": 512}, "should match pattern"),
    ],
)
def test_bad_programs_name_what_is_wrong(key: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Programs.model_validate({key: value})
    assert message in str(caught.value)


def test_a_dc_is_made_from_a_configuration_file_of_its_own() -> None:
    programs = {
        **SAMPLE["programs"],
        "dc": "cd ../dvs-apps/dc_init && ./dc_init {config}",
        "dc_config": {"nr_procs": 256, "tracker": "YES", "mount": "/srv/DC 0", "warn2proc": -2},
        "guest_dc": "./test_dc_init -d {dcid}",
    }
    sides = dvssides.sides(lab(1, dvs={**SAMPLE, "programs": programs}))
    folder = sides[0]["folder"]
    assert sides[0]["files"][f"{folder}/dc0.cfg"] == (
        "# Written by umlaan.\ndc DC0 {\n    dcid 0;\n    nr_procs 256;\n    tracker YES;\n"
        '    mount "/srv/DC 0";\n    warn2proc -2;\n};\n'
    )
    assert f"cd ../dvs-apps/dc_init && ./dc_init {folder}/dc0.cfg" in sides[0]["dcs"][0]["command"]
    # In a guest it is made otherwise, without an init that anything would enter.
    assert not any(path.endswith(".cfg") for path in sides[1]["files"])
    assert "./test_dc_init -d 0" in sides[1]["dcs"][0]["command"]
    assert (sides[0]["dcs"][0]["file"], sides[1]["dcs"][0]["file"]) == (
        f"{sides[0]['run']}/DC0.sh",
        None,
    )
    more = {**programs, "dc_config": {"memory": 512}}
    other = dvssides.sides(lab(1, dvs={**SAMPLE, "programs": more}))
    assert other[0]["dcs"][0]["made"] != sides[0]["dcs"][0]["made"]
    assert other[1]["dcs"][0]["made"] == sides[1]["dcs"][0]["made"]


def test_a_dc_file_may_stand_in_the_tree_that_makes_it() -> None:
    programs = {**SAMPLE["programs"], "dc_file": "{dest}/dvs-apps/dc_init/DC{dcid}.sh"}
    made = lab(1, dvs={**SAMPLE, "programs": programs}, state_dir="/srv/mine")
    path = "/srv/mine/dvs/ioctl/dvs-apps/dc_init/DC0.sh"
    assert dvssides.sides(made)[0]["dcs"][0]["file"] == path
    # The node is launched in that DC.
    assert node.dc_file(made, made.node("node1")) == (path, True)


def test_the_more_peers_a_side_has_the_less_often_its_joins_are_looked_at() -> None:
    """Each look costs processes in a guest, and in a lab of 16 nodes there are 16 who look."""
    patience = {"patience": 20.0}
    few, many = ({**patience, "peers": [{}] * count} for count in (1, 15))
    assert dvssides._pauses(few) == [1, 3]
    assert dvssides._pauses(many) == [2, 7]
