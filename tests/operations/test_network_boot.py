"""The network on the host itself, and what brings it up again at boot: units and a script."""

from __future__ import annotations

from typing import Any

from tests.operations.network_answers import (
    ON_HOST,
    on_host,
    run,
    whole,
)
from tests.operations.support import LAB, commands_of
from umlaan.operations.network import wanted_on
from umlaan.plan.network_files import boot_script, network_unit, nodes_unit


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
