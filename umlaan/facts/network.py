"""The lab host's links, addresses and routes as they are: netlink here, ``ip -j`` elsewhere."""

from __future__ import annotations

import os
import pwd
import shlex
from typing import TYPE_CHECKING, Any

import gevent  # type: ignore[import-untyped]
from pyinfra.connectors.local import LocalConnector

from umlaan.agent import network as reader
from umlaan.facts.base import JsonFact, ask_agent
from umlaan.plan.network_state import Found, Wanted, parse_found

if TYPE_CHECKING:
    from pyinfra.api.host import Host

_FLAGS = {0x1: "UP", 0x100: "PROMISC", 0x10000: "LOWER_UP"}
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host"}
_PERMANENT = 0x80


class NetworkState(JsonFact):
    """One command: links, addresses, routes, and the files beside them."""

    def command(
        self,
        agent: str,
        namespace: str | None,
        files: tuple[str, ...],
        accounts: tuple[str, ...],
        leaving: str,
    ) -> str:
        """The agent's ``network read``."""
        words = [namespace or "-", *(f"--file={path}" for path in files)]
        words += [f"--account={name}" for name in accounts]
        if leaving:
            words.append(f"--leaving={leaving}")
        return f"{agent} network read {shlex.join(words)}"

    def process(self, output: list[str]) -> Found:
        """The found network."""
        return parse_found(super().process(output))


def found_network(on: Host, wanted: Wanted, *, leaving: bool = False) -> Found:
    """The network of a lab host as it is, read at once.

    On this very machine, as root, by netlink without any process (3 ms against 60 to 100);
    elsewhere by the agent. leaving looks also for the processes that hold taps or live in the
    namespace, and for namespaces that the lab had before.
    """
    mark = wanted.mark if leaving else ""
    if isinstance(on.connector, LocalConnector) and os.geteuid() == 0:
        # In a thread of its own: the thread enters the namespace, and pyroute2 has its event loop.
        pool = gevent.get_hub().threadpool
        value = pool.apply(_read_here, (wanted, mark))
        return parse_found(value)
    found: Found = ask_agent(
        on, NetworkState, wanted.namespace, wanted.files, wanted.accounts, mark
    )
    return found


def _read_here(wanted: Wanted, leaving: str) -> Any:
    return reader.read(
        wanted.namespace,
        list(wanted.files),
        accounts=list(wanted.accounts),
        leaving=leaving,
        links=links_by_netlink,
    )


def links_by_netlink() -> dict[str, Any]:
    """What ``ip -j -d addr`` and ``ip -j route`` would print, as far as the plan reads it."""
    # 0.2 s to import: only where it is used.
    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    with IPRoute() as netlink:
        links = list(netlink.get_links())
        addresses = list(netlink.get_addr())
        routes = list(netlink.get_routes(family=2, table=254))
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
    rows = [_link_row(link, names, addresses) for link in links]
    return {
        "addr": rows,
        "route": [_route_row(route, names) for route in routes],
        "tx": reader.tx_checksum(reader.taps_of(rows)),
    }


def _link_row(link: Any, names: dict[int, str], addresses: list[Any]) -> dict[str, Any]:
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    data = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    details: dict[str, Any] = {}
    if data and kind == "bridge":
        details["mcast_snooping"] = data.get_attr("IFLA_BR_MCAST_SNOOPING")
    if data and kind == "tun":
        details["type"] = {1: "tun", 2: "tap"}.get(data.get_attr("IFLA_TUN_TYPE"))
        owner = data.get_attr("IFLA_TUN_OWNER")
        if owner is not None:
            details["user"] = _user_name(owner)
    return {
        "ifname": link.get_attr("IFLA_IFNAME"),
        "flags": [name for bit, name in _FLAGS.items() if link["flags"] & bit],
        "mtu": link.get_attr("IFLA_MTU"),
        "address": link.get_attr("IFLA_ADDRESS") or "",
        "ifalias": link.get_attr("IFLA_IFALIAS"),
        "master": names.get(link.get_attr("IFLA_MASTER")),
        "linkinfo": {"info_kind": kind, "info_data": details},
        "addr_info": [
            {
                "local": address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"),
                "prefixlen": address["prefixlen"],
                "scope": _SCOPES.get(address["scope"], "global"),
                "dynamic": not (address.get_attr("IFA_FLAGS") or address["flags"]) & _PERMANENT,
            }
            for address in addresses
            if address["index"] == link["index"]
        ],
    }


def _user_name(uid: int) -> str | int:
    """As ip prints it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return uid


def _route_row(route: Any, names: dict[int, str]) -> dict[str, Any]:
    destination = route.get_attr("RTA_DST")
    return {
        "dst": f"{destination}/{route['dst_len']}" if destination else "default",
        "dev": names.get(route.get_attr("RTA_OIF")),
        "protocol": str(route["proto"]),
    }
