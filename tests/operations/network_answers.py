"""What a machine answers of its network in these tests: all well, nothing there, one thing off."""

from __future__ import annotations

import json
from typing import Any

from pyinfra.api.state import StateStage

from tests.operations.support import LAB, NODE, commands_of
from umlaan.operations import network

IP = "ip -n umlaan"
MARK = "umlaan:umlaan"
USER = "umlaan-umlaan"
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
    tap["linkinfo"]["info_data"] = {"type": "tap", "persist": True, "user": USER}
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
        "accounts": {USER: {"uid": 999, "comment": "umlaan lab umlaan"}},
    }


def bare(namespace: str = "missing") -> dict[str, Any]:
    return {
        **whole(),
        "namespace": namespace,
        "addr": [],
        "route": [],
        "tx": {},
        "files": {"/etc/hosts": HOSTS},
        "accounts": {USER: None},
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


ON_HOST = {"network": {"namespace": None}}


def on_host() -> dict[str, Any]:
    """The procedure's own machine: eth0 with 192.168.1.100, systemd, no lab yet."""
    found = bare("root")
    eth0 = link("eth0", ifalias=None, addr_info=[address("192.168.1.100/24")])
    found.update(addr=[link("lo", ifalias=None), eth0], accounts=whole()["accounts"])
    return found
