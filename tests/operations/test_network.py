"""The network's operations: what ``ip -j`` says -> exact commands, and the no-change case."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from tests.operations.support import LAB, NODE, commands_of
from umlaan.operations import network
from umlaan.operations.network import wanted_on
from umlaan.plan.network_files import boot_script, network_unit, nodes_unit

IP = "ip -n umlaan"
MARK = "umlaan:umlaan"
HOSTS = "127.0.0.1\tlocalhost\n"
OWN_HOSTS = (
    f"# {MARK}: /etc/hosts with the lab's nodes before it\n# {MARK} begin\n"
    f"192.168.1.100\tnode0\n192.168.1.101\tnode1\n# {MARK} end\n{HOSTS}"
)


def link(name: str, kind: str | None = None, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "ifname": name,
        "flags": ["BROADCAST", "UP", "LOWER_UP"],
        "mtu": 1500,
        "address": "02:00:00:00:00:01",
        "ifalias": MARK,
        "addr_info": [],
    }
    if kind:
        row["linkinfo"] = {"info_kind": kind, "info_data": {}}
    row.update(more)
    return row


def address(text: str, scope: str = "global") -> dict[str, Any]:
    local, _, length = text.partition("/")
    return {"family": "inet", "local": local, "prefixlen": int(length), "scope": scope}


def whole() -> dict[str, Any]:
    """The default lab with one node as the agent finds it when all is well."""
    tap = link("HTAP", "tun", master="br0", flags=["UP"])
    tap["linkinfo"]["info_data"] = {"type": "tap", "persist": True, "user": "root"}
    bridge = link("br0", "bridge", address="fe:fd:c0:a8:01:0a")
    bridge["flags"].append("PROMISC")
    bridge["linkinfo"]["info_data"] = {"mcast_snooping": 0}
    bridge["addr_info"] = [address("192.168.1.10/24"), address("fe80::1/64", "link")]
    node0 = link("eth0", "dummy", addr_info=[address("192.168.1.100/32")])
    return {
        "namespace": "here",
        "addr": [link("lo"), bridge, node0, tap],
        "route": [
            {"dst": "192.168.1.0/24", "dev": "br0", "protocol": "kernel"},
            {"dst": "192.168.1.101", "dev": "br0", "protocol": "85"},
        ],
        "tx": {"HTAP": False},
        "files": {"/etc/hosts": HOSTS, "/etc/netns/umlaan/hosts": OWN_HOSTS},
        "managers": [],
        "ssh": None,
        "users": [],
    }


def bare(namespace: str = "missing") -> dict[str, Any]:
    return {
        **whole(),
        "namespace": namespace,
        "addr": [],
        "route": [],
        "tx": {},
        "files": {"/etc/hosts": HOSTS},
    }


def of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in found["addr"] if row["ifname"] == name)


def run(
    verb: str,
    found: dict[str, Any],
    data: dict[str, Any] | None = None,
    reasons: list[tuple[str, str]] | None = None,
    stage: StateStage = StateStage.Execute,
) -> list[str]:
    on = NODE if verb == "tap" else LAB

    def call() -> Any:
        from umlaan.operations.common import lab

        if verb == "tap":
            return network.tap._inner(lab().node("node1"))
        return getattr(network, verb)._inner(lab().host(LAB))

    responses = {"network read": json.dumps(found)}
    return commands_of(call, on=on, responses=responses, data=data, reasons=reasons, stage=stage)


@pytest.mark.parametrize("verb", ["up", "tap"])
def test_nothing_differs(verb: str) -> None:
    reasons: list[tuple[str, str]] = []
    assert run(verb, whole(), reasons=reasons) == []
    assert reasons == []


def test_down_with_nothing_there() -> None:
    assert run("down", bare()) == []


def test_up_from_nothing() -> None:
    commands = run("up", bare())
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
        assert make == f"{IP} tuntap add dev {half} mode tap user root"
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
    "mtu": ({"mtu": 9000}, f"{IP} link set HTAP mtu 1500", "tap HTAP: mtu 9000 → 1500"),
}


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


ON_HOST = {"network": {"namespace": None}}


def on_host() -> dict[str, Any]:
    """The procedure's own machine: eth0 with 192.168.1.100, systemd, no lab yet."""
    found = bare("root")
    eth0 = link("eth0", ifalias=None, addr_info=[address("192.168.1.100/24")])
    found.update(addr=[link("lo", ifalias=None), eth0])
    return found


def test_on_the_host_itself_the_lan_keeps_its_route() -> None:
    bridge, hosts = run("up", on_host(), ON_HOST)
    assert "ip addr replace 192.168.1.10/24 broadcast 192.168.1.255 dev br0 noprefixroute" in bridge
    assert "192.168.1.100/32" not in bridge
    assert hosts.endswith("--backup /var/lib/umlaan/umlaan/backup/etc/hosts")


def test_on_a_host_without_node0s_address_the_bridge_gets_it() -> None:
    found = on_host()
    found["addr"].pop()
    bridge = run("up", found, ON_HOST)[0]
    assert "ip addr replace 192.168.1.100/32 dev br0 && ip link set br0 up" in bridge
    assert "noprefixroute" not in bridge


def test_who_manages_networks_keeps_off_first() -> None:
    found = on_host()
    found["managers"] = ["NetworkManager", "networkd"]
    first, second, *_ = run("up", found, ON_HOST)
    assert first.startswith(
        "umlaan-agent network put /etc/NetworkManager/conf.d/umlaan-umlaan.conf 0644 "
    )
    assert "match-device=interface-name:br0;interface-name:HTAP;" in first
    assert first.endswith("&& nmcli general reload")
    assert "Name=br0 HTAP" in second
    assert second.endswith("&& networkctl reload")


def test_with_systemd_the_network_comes_back_at_boot() -> None:
    found = whole()
    found["managers"] = ["systemd"]
    script, unit, enable, *nodes = run("up", found)
    assert script.startswith("umlaan-agent network put /var/lib/umlaan/umlaan/network.sh 0644 ")
    assert "ExecStart=/bin/sh /var/lib/umlaan/umlaan/network.sh" in unit
    assert unit.endswith("&& systemctl daemon-reload")
    assert enable == "systemctl --quiet enable umlaan-umlaan-network.service"
    assert len(nodes) == 3


def at_boot() -> dict[str, Any]:
    """The default lab on a host with systemd, its units as they are wanted."""
    found = whole()
    found["managers"] = ["systemd"]
    texts: dict[str, str | None] = {}

    def call() -> list[str]:
        from umlaan.operations.common import lab

        wanted = wanted_on(lab().host(LAB))
        texts[wanted.script] = boot_script(wanted)
        texts[wanted.unit_file] = network_unit(wanted)
        texts[wanted.nodes_file] = nodes_unit(wanted)
        for path in (wanted.unit_link, wanted.nodes_link, wanted.nodes_done, wanted.agent):
            texts[path] = "there"
        return []

    commands_of(call, on=LAB)
    found["files"] |= texts
    return found


NODES_UNIT = "/etc/systemd/system/umlaan-umlaan-nodes.service"


def test_units_as_they_are_wanted_are_no_change() -> None:
    reasons: list[tuple[str, str]] = []
    assert run("up", at_boot(), reasons=reasons) == []
    assert reasons == []


def test_an_edited_unit_of_the_nodes_is_written_again() -> None:
    found = at_boot()
    found["files"][NODES_UNIT] += "# edited\n"
    (command,) = run("up", found)
    assert command.startswith(f"umlaan-agent network put {NODES_UNIT} 0644 ")
    assert command.endswith("&& systemctl daemon-reload")
    # What starts at boot is beside the lab's state, not in a checkout.
    assert "PYTHONPATH=/var/lib/umlaan/umlaan/at-boot/agent-" in command
    assert "at-boot up umlaan /var/lib/umlaan/umlaan" in command


def test_a_unit_of_the_nodes_that_is_off_or_not_up_is_switched_on() -> None:
    start = "systemctl --quiet enable umlaan-umlaan-nodes.service && systemctl start"
    for path, said in (
        ("/etc/systemd/system/multi-user.target.wants/umlaan-umlaan-nodes.service", "it is off"),
        ("/run/umlaan/umlaan.at-boot", "it did not start in this boot"),
    ):
        found, reasons = at_boot(), []
        found["files"][path] = None
        (command,) = run("up", found, reasons=reasons)
        assert command.startswith(start)
        assert reasons == [(LAB, f"umlaan-umlaan-nodes.service: enable, {said}")]


def test_the_agent_of_the_unit_is_placed_where_it_is_missing() -> None:
    found = at_boot()
    (path,) = [name for name in found["files"] if name.endswith(".zip")]
    found["files"][path] = None
    assert run("up", found) == [f"umlaan-agent at-boot place {path}"]


def test_down_takes_the_units_away() -> None:
    commands = run("down", at_boot())
    removed = [command for command in commands if "systemctl" in command]
    assert removed == [
        "systemctl --quiet disable --now umlaan-umlaan-nodes.service && "
        f"rm -f {NODES_UNIT} /run/umlaan/umlaan.at-boot && systemctl daemon-reload",
        "systemctl --quiet disable umlaan-umlaan-network.service && "
        "rm -f /etc/systemd/system/umlaan-umlaan-network.service && systemctl daemon-reload",
    ]


def test_the_boot_script_makes_it_all_and_a_written_one_is_no_change() -> None:
    texts: dict[str, str] = {}

    def call() -> list[str]:
        from umlaan.operations.common import lab

        wanted = wanted_on(lab().host(LAB))
        texts["script"] = boot_script(wanted)
        return []

    commands_of(call, on=LAB)
    script = texts["script"]
    assert "[ ! -e /run/netns/umlaan ] || exit 0" in script
    for word in ("ip netns attach umlaan", "name br0", "name eth0", "name HTAP", "192.168.1.101"):
        assert word in script
    assert "umlaan-agent" not in script


def test_the_boot_script_leaves_an_address_where_the_users_link_has_it() -> None:
    def script(found: dict[str, Any]) -> str:
        found["managers"] = ["systemd"]
        return next(c for c in run("up", found, ON_HOST) if "/network.sh 0644" in c)

    # The procedure's host has node0's address on its own link: br0 does not get it at boot either.
    here = on_host()
    assert "192.168.1.100/32" not in script(here)
    assert "noprefixroute" in script(here) and "192.168.1.10/24" in script(here)
    here["addr"] = [row for row in here["addr"] if row["ifname"] in ("lo", "br0", "HTAP")]
    assert "192.168.1.100/32 dev br0" in script(here)


def test_down_takes_the_namespace_with_all_of_ours() -> None:
    reasons: list[tuple[str, str]] = []
    assert run("down", whole(), reasons=reasons) == [
        "ip netns delete umlaan",
        "rm -f /etc/netns/umlaan/hosts && sh -c 'rmdir /etc/netns/umlaan 2>/dev/null || true'",
    ]
    assert reasons[0] == (LAB, "network namespace umlaan: remove, with HTAP, eth0, br0")


def test_down_leaves_what_others_put_there() -> None:
    found = whole()
    found["addr"].append(link("veth7", "veth", ifalias=None))
    links = [f"{IP} link del {name}" for name in ("HTAP", "eth0", "br0")]
    assert run("down", found)[:-1] == links
    found = whole()
    of(found, "lo")["ifalias"] = None
    assert run("down", found)[:-1] == links, "a namespace that umlaan did not make went"
    found["addr"] = [of(found, "lo"), link("br0", "bridge", ifalias=None)]
    found["files"].pop("/etc/netns/umlaan/hosts")
    assert run("down", found) == []


def test_down_takes_the_namespace_that_the_lab_had_before() -> None:
    found = bare()
    user = {"pid": 9, "command": "linux", "taps": []}
    found["elsewhere"] = [{"name": "old", "users": []}, {"name": "older", "users": [user]}]
    assert run("down", found) == [
        "ip netns delete old && rm -f /etc/netns/old/hosts && "
        "sh -c 'rmdir /etc/netns/old 2>/dev/null || true'"
    ]


def test_down_fails_while_a_tap_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "LINGER_S", 0.1)
    found = whole()
    found["users"] = [{"pid": 77, "command": "linux", "taps": ["HTAP"]}]
    planned = run("down", found, stage=StateStage.Prepare)
    assert planned[0] == "ip netns delete umlaan", "planned as if its guest still ran"
    assert run("down", found) == ["tap HTAP is held by pid 77 (linux): stop it first"]


def test_down_on_the_host_itself_takes_the_block_out() -> None:
    found = on_host()
    block = f"# {MARK} begin\n192.168.1.101\tnode1\n# {MARK} end\n"
    found["files"] = {"/etc/hosts": HOSTS + block + "10.0.0.1\tmine\n"}
    (command,) = run("down", found, ON_HOST)
    assert command == f"umlaan-agent network names /etc/hosts {MARK}"


def test_a_long_hosts_file_is_not_carried_in_the_command() -> None:
    found = bare()
    found["files"] = {"/etc/hosts": "0.0.0.0\tan.advertiser.example\n" * 20_000}
    assert max(map(len, run("up", found))) < 2_000
