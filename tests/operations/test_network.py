"""The network's operations: what ``ip -j`` says -> exact commands, and the no-change case."""

from __future__ import annotations

import copy

import pytest
from pyinfra.api.state import StateStage

from tests.operations.network_answers import (
    IP,
    MARK,
    USER,
    address,
    bare,
    link,
    of,
    run,
    whole,
)
from tests.operations.support import LAB, NODE


@pytest.mark.parametrize("verb", ["up", "tap"])
def test_nothing_differs(verb: str) -> None:
    reasons: list[tuple[str, str]] = []
    assert run(verb, whole(), reasons=reasons) == []
    assert reasons == []


def test_up_from_nothing() -> None:
    reasons: list[tuple[str, str]] = []
    make_user, *commands = run("up", bare(), reasons=reasons)
    assert make_user == (
        "useradd --system --user-group --no-create-home --home-dir /nonexistent "
        f"--shell /usr/sbin/nologin --comment 'umlaan lab umlaan' {USER}"
    )
    assert reasons[0] == (LAB, f"user {USER}: make, the lab's UMLs run as it")
    assert commands[0] == (
        "unshare --net sh -ec 'ip link set lo alias umlaan:umlaan && ip link set lo up "
        "&& ip netns attach umlaan $$'"
    )
    make, *rest = commands[1].split(" && ")
    half = make.split()[5]
    assert half.startswith("uml")
    assert len(half) < 16
    assert make == (f"{IP} link add {half} address fe:fd:c0:a8:01:0a type bridge mcast_snooping 0")
    assert rest == [
        f"{IP} link set {half} alias {MARK} mtu 1500 promisc on name br0",
        f"{IP} addr replace 192.168.1.10/24 broadcast 192.168.1.255 dev br0",
        f"{IP} link set br0 up",
    ]
    assert "dummy 2>/dev/null" in commands[2]
    assert commands[2].endswith(
        f"name eth0 && {IP} addr replace 192.168.1.100/32 dev eth0 && {IP} link set eth0 up"
    )
    assert commands[3] == (
        f"umlaan-agent network names /etc/netns/umlaan/hosts {MARK} '192.168.1.100\tnode0' "
        "'192.168.1.101\tnode1' "
        "--backup /var/lib/umlaan/umlaan/backup/etc/netns/umlaan/hosts"
    )
    assert len(commands) == 4


def test_tap_from_nothing_also_while_planning() -> None:
    for stage in (StateStage.Prepare, StateStage.Execute):
        commands = run("tap", bare(), stage=stage)
        make, *rest = commands[0].split(" && ")
        half = make.split()[6]
        assert make == f"{IP} tuntap add dev {half} mode tap user {USER}"
        assert rest == [
            f"{IP} link set {half} alias {MARK} mtu 1500 name HTAP",
            f"{IP} link set HTAP master br0 up",
        ]
        assert commands[1:] == [f"{IP} route replace 192.168.1.101/32 dev br0 proto 85"]


UP_DRIFTS = {
    "up": ({"flags": ["PROMISC"]}, f"{IP} link set br0 up", "bridge br0: up, it is down"),
    "mtu": ({"mtu": 1400}, f"{IP} link set br0 mtu 1500", "bridge br0: mtu 1400 → 1500"),
    "promiscuous": (
        {"flags": ["UP"]},
        f"{IP} link set br0 promisc on",
        "bridge br0: promiscuous off → on",
    ),
    "snooping": (
        {"linkinfo": {"info_kind": "bridge", "info_data": {"mcast_snooping": 1}}},
        f"{IP} link set br0 type bridge mcast_snooping 0",
        "bridge br0: multicast snooping on → off",
    ),
    "address": (
        {"addr_info": [address("192.168.1.11/24")]},
        f"{IP} addr del 192.168.1.11/24 dev br0 && "
        f"{IP} addr replace 192.168.1.10/24 broadcast 192.168.1.255 dev br0 && "
        f"{IP} route replace 192.168.1.101/32 dev br0 proto 85",
        "address of br0: 192.168.1.11/24 → 192.168.1.10/24",
    ),
    "no address": (
        {"addr_info": []},
        f"{IP} addr replace 192.168.1.10/24 broadcast 192.168.1.255 dev br0",
        "address of br0: add 192.168.1.10/24",
    ),
}


@pytest.mark.parametrize("name", UP_DRIFTS)
def test_each_drift_of_the_bridge_alone(name: str) -> None:
    fields, command, reason = UP_DRIFTS[name]
    found = whole()
    of(found, "br0").update(copy.deepcopy(fields))
    reasons: list[tuple[str, str]] = []
    assert run("up", found, reasons=reasons) == [command]
    assert reasons == [(LAB, reason)]


TAP_DRIFTS = {
    "detached": (
        {"master": None},
        f"{IP} link set HTAP master br0",
        "tap HTAP: enslave to br0, it is detached",
    ),
    "elsewhere": (
        {"master": "br9"},
        f"{IP} link set HTAP master br0",
        "tap HTAP: enslave to br0, it is in br9",
    ),
    "down": ({"flags": []}, f"{IP} link set HTAP up", "tap HTAP: up, it is down"),
    "another's": (
        {"linkinfo": {"info_kind": "tun", "info_data": {"type": "tap", "user": "root"}}},
        f"umlaan-agent network give umlaan HTAP {USER}",
        f"tap HTAP: user root → {USER}",
    ),
    "nobody's": (
        {"linkinfo": {"info_kind": "tun", "info_data": {"type": "tap"}}},
        f"umlaan-agent network give umlaan HTAP {USER}",
        f"tap HTAP: user nobody → {USER}",
    ),
    "mtu": ({"mtu": 9000}, f"{IP} link set HTAP mtu 1500", "tap HTAP: mtu 9000 → 1500"),
}


def test_a_kernel_that_does_not_say_tun_or_tap_is_read_by_the_mac_address() -> None:
    """Linux before 4.16, the procedure's 4.9 among them: a tap of a running UML is not remade."""
    found = whole()
    of(found, "HTAP")["linkinfo"]["info_data"] = {}
    assert run("tap", found) == []
    of(found, "HTAP")["address"] = ""
    reasons: list[tuple[str, str]] = []
    assert run("tap", found, reasons=reasons)
    assert reasons[0] == (NODE, "tap HTAP: make, it is a tun")


@pytest.mark.parametrize("name", TAP_DRIFTS)
def test_each_drift_of_the_tap_alone(name: str) -> None:
    fields, command, reason = TAP_DRIFTS[name]
    found = whole()
    of(found, "HTAP").update(fields)
    reasons: list[tuple[str, str]] = []
    assert run("tap", found, reasons=reasons) == [command]
    assert reasons == [(NODE, reason)]


@pytest.mark.parametrize(
    ("transport", "held", "off"),
    [
        ("tuntap", False, True),
        ("tuntap", True, True),
        ("auto", False, True),
        ("auto", True, False),
        ("vector", False, False),
    ],
)
def test_offload_that_a_vector_guest_left(transport: str, held: bool, off: bool) -> None:
    found = whole()
    found["tx"] = {"HTAP": True}
    if held:
        of(found, "HTAP")["flags"] = ["UP", "LOWER_UP"]
    wanted = ["umlaan-agent network txoff umlaan HTAP"] if off else []
    assert run("tap", found, data={"node.transport": transport}) == wanted


@pytest.mark.parametrize("held", [True, False])
def test_a_tap_of_another_user_that_a_guest_holds_waits_for_its_launch(held: bool) -> None:
    found = whole()
    of(found, "HTAP")["linkinfo"]["info_data"]["user"] = "root"
    of(found, "HTAP")["flags"] = ["UP", "LOWER_UP"] if held else ["UP"]
    assert bool(run("tap", found)) is not held


def test_a_tap_is_root_s_where_the_data_has_its_uml_run_as_root() -> None:
    found = whole()
    of(found, "HTAP")["linkinfo"]["info_data"]["user"] = "root"
    assert run("tap", found, {"node": {"user": "root"}}) == []
    assert run("up", bare(), {"node": {"user": "root"}})[0].startswith("unshare --net")


FOREIGN_USERS = {
    "its name": ({USER: {"uid": 999, "comment": "somebody"}}, {}, "up", "was not made by umlaan"),
    "root": ({USER: {"uid": 0, "comment": "umlaan lab umlaan"}}, {}, "up", "was not made by"),
    "missing": ({"eva": None}, {"user": "eva"}, "tap", "no user eva for node1 on the lab host"),
    "toor": ({"toor": {"uid": 0, "comment": ""}}, {"user": "toor"}, "tap", "is root by another"),
}


@pytest.mark.parametrize("name", FOREIGN_USERS)
def test_a_user_that_is_not_the_lab_s_own_is_refused(name: str) -> None:
    accounts, data, verb, message = FOREIGN_USERS[name]
    found = whole()
    found["accounts"] = accounts
    (said,) = run(verb, found, {"node": data})
    assert message in said


def test_foreign_links_are_refused() -> None:
    found = whole()
    of(found, "br0")["ifalias"] = None
    (message,) = run("up", found)
    assert message.startswith("br0 is there already in network namespace umlaan and was not made")
    assert "network.bridge" in message
    of(found, "br0")["ifalias"] = "umlaan:other"
    assert "belongs to lab other" in run("up", found)[0]
    found = whole()
    of(found, "HTAP")["ifalias"] = None
    assert run("tap", found)[0].startswith("HTAP is there already")
    assert run("up", found) == [], "a foreign tap is the node's fault, not the lab host's"


def test_a_guests_mac_on_the_lab_host_is_refused() -> None:
    found = whole()
    found["addr"].append(link("x", address="fe:fd:c0:a8:01:65"))
    assert "MAC of node1: fe:fd:c0:a8:01:65 is the lab host's own, of x" in run("tap", found)[0]


def test_a_long_hosts_file_is_not_carried_in_the_command() -> None:
    found = bare()
    found["files"] = {"/etc/hosts": "0.0.0.0\tan.advertiser.example\n" * 20_000}
    assert max(map(len, run("up", found))) < 2_000
