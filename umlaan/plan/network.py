"""Procedure, "Creacion de la red entre HOST-UML": (wanted, found) -> changes and reasons."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_interface

from umlaan.plan.network_state import ROUTE_PROTOCOL, Found, Link, Tap, Wanted

# Stands for the agent's command line on the lab host, which the operation knows.
AGENT = "umlaan-agent"
Words = tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One change of the plan: why, and the commands that make it, in order."""

    reason: str
    commands: tuple[Words, ...]

    def shell(self, agent: str) -> str:
        """One shell command; agent is the agent's command line there."""
        return " && ".join(
            f"{agent} {shlex.join(words[1:])}" if words[0] == AGENT else shlex.join(words)
            for words in self.commands
        )


def ip_words(wanted: Wanted, *words: str) -> Words:
    """An ip command in the lab's namespace."""
    return ("ip", "-n", wanted.namespace, *words) if wanted.namespace else ("ip", *words)


def holder_of(address: IPv4Address, found: Found, but: str | None) -> str | None:
    """The link that has this address, another one than ``but``."""
    for link in found.links.values():
        if link.name != but and any(ip_interface(a).ip == address for a in link.addresses):
            return link.name
    return None


def shared_changes(wanted: Wanted, found: Found) -> list[Change]:
    """The lab host's part: namespace, bridge, node0's link, what is no longer wanted."""
    return [
        *_namespace(wanted, found),
        *_leftovers(wanted, found),
        *bridge_changes(wanted, found),
        *_node0(wanted, found),
    ]


def _namespace(wanted: Wanted, found: Found) -> Iterator[Change]:
    name = wanted.namespace
    if name is None:
        return
    lo = found.links.get("lo")
    if found.namespace in ("missing", "broken"):
        # It gets its name last, when it carries the mark: a killed run leaves no unmarked one.
        make = (
            f"ip link set lo alias {wanted.mark} && ip link set lo up && ip netns attach {name} $$"
        )
        remove: tuple[Words, ...] = ()
        if found.namespace == "broken":
            remove = (("ip", "netns", "delete", name),)
        what = "it is missing" if found.namespace == "missing" else "its name leads nowhere"
        yield Change(
            f"network namespace {name}: make, {what}",
            (*remove, ("unshare", "--net", "sh", "-ec", make)),
        )
    elif lo is not None and lo.alias == wanted.mark and not lo.up:
        yield Change(
            f"lo of network namespace {name}: up, it is down",
            (ip_words(wanted, "link", "set", "lo", "up"),),
        )


def _leftovers(wanted: Wanted, found: Found) -> Iterator[Change]:
    names = [wanted.bridge, wanted.node0_link, *(t.name for t in wanted.taps)]
    for link in found.links.values():
        if link.name.startswith(wanted.half_made_prefix):
            yield Change(
                f"link {link.name}: remove, a killed run left it half made",
                (ip_words(wanted, "link", "del", link.name),),
            )
        # A tap with a carrier is held by a guest: whoever stops that removes it.
        elif (
            link.name not in (*names, "lo")
            and link.alias == wanted.mark
            and not (link.tap and link.carrier)
        ):
            yield Change(
                f"link {link.name}: remove, no node of this lab has it any more",
                (ip_words(wanted, "link", "del", link.name),),
            )
    routes = {(f"{t.address}/32", wanted.bridge) for t in wanted.taps}
    for destination, device in sorted(found.own_routes - routes):
        yield Change(
            f"route to {destination.removesuffix('/32')}: remove, no node of this lab has it",
            (ip_words(wanted, "route", "del", destination, "dev", device),),
        )


def _bridge_addresses(wanted: Wanted, found: Found) -> list[str]:
    addresses = [str(wanted.address)]
    # The procedure's host has node0's address on its own eth0; where it has not, br0 gets it.
    node0 = wanted.node0_address
    if node0 and not wanted.namespace and not holder_of(node0, found, wanted.bridge):
        addresses.append(f"{node0}/32")
    return addresses


def _add_address(wanted: Wanted, found: Found, address: str) -> Words:
    words = ["addr", "replace", address, "dev", wanted.bridge]
    if address == str(wanted.address):
        words[3:3] = ["broadcast", str(wanted.address.network.broadcast_address)]
    others = [
        ip_interface(a).network
        for link in found.links.values()
        if link.name not in (wanted.bridge, wanted.node0_link)
        for a in link.addresses
        if ":" not in a
    ]
    if any(wanted.address.network.overlaps(n) for n in others):
        # The LAN stays with the link that has it: only the host routes lead over the bridge.
        words.append("noprefixroute")
    return ip_words(wanted, *words)


def bridge_changes(wanted: Wanted, found: Found) -> Iterator[Change]:
    """The bridge, its settings and its addresses."""
    name = wanted.bridge
    link = found.links.get(name)
    promiscuous = "on" if wanted.promiscuous else "off"
    snooping = "1" if wanted.snooping else "0"
    addresses = _bridge_addresses(wanted, found)
    if link is None:
        half = wanted.half_made(name)
        yield Change(
            f"bridge {name}: make, it is missing",
            (
                ip_words(
                    *(wanted, "link", "add", half, "address", wanted.mac),
                    *("type", "bridge", "mcast_snooping", snooping),
                ),
                ip_words(
                    *(wanted, "link", "set", half, "alias", wanted.mark, "mtu", str(wanted.mtu)),
                    *("promisc", promiscuous, "name", name),
                ),
                *(_add_address(wanted, found, address) for address in addresses),
                ip_words(wanted, "link", "set", name, "up"),
            ),
        )
        return
    on_off = {True: "on", False: "off"}

    def setting(what: str, is_: object, to: object, *words: str) -> Change:
        return Change(
            f"bridge {name}: {what} {is_} → {to}", (ip_words(wanted, "link", "set", name, *words),)
        )

    if link.mac != wanted.mac:
        yield setting("MAC", link.mac, wanted.mac, "address", wanted.mac)
    if link.mtu != wanted.mtu:
        yield setting("mtu", link.mtu, wanted.mtu, "mtu", str(wanted.mtu))
    if link.promiscuous != wanted.promiscuous:
        is_ = on_off[link.promiscuous]
        yield setting("promiscuous", is_, promiscuous, "promisc", promiscuous)
    if link.snooping is not None and link.snooping != wanted.snooping:
        words = ("type", "bridge", "mcast_snooping", snooping)
        is_ = on_off[link.snooping]
        yield setting("multicast snooping", is_, on_off[wanted.snooping], *words)
    yield from _addresses(wanted, found, link, addresses)
    if not link.up:
        yield Change(
            f"bridge {name}: up, it is down", (ip_words(wanted, "link", "set", name, "up"),)
        )


def _addresses(wanted: Wanted, found: Found, link: Link, addresses: list[str]) -> Iterator[Change]:
    extra = [a for a in link.addresses if a not in addresses]
    missing = [a for a in addresses if a not in link.addresses]
    if not extra and not missing:
        return
    if len(extra) == len(missing) == 1:
        reason = f"address of {link.name}: {extra[0]} → {missing[0]}"
    elif not extra:
        reason = f"address of {link.name}: add {', '.join(missing)}"
    elif not missing:
        reason = f"address of {link.name}: remove {', '.join(extra)}, the lab does not have it"
    else:
        reason = f"address of {link.name}: {', '.join(link.addresses)} → {', '.join(addresses)}"
    commands = [ip_words(wanted, "addr", "del", a, "dev", link.name) for a in extra]
    # An address takes its secondaries along, and the last one all routes: put back what is wanted.
    commands += [_add_address(wanted, found, a) for a in (addresses if extra else missing)]
    if extra:
        commands += [
            _route(wanted, t.address)
            for t in wanted.taps
            if (f"{t.address}/32", link.name) in found.routes
        ]
    yield Change(reason, tuple(commands))


def _node0(wanted: Wanted, found: Found) -> Iterator[Change]:
    name = wanted.node0_link
    if name is None or wanted.node0_address is None:
        return
    address = f"{wanted.node0_address}/32"
    link = found.links.get(name)
    add = ip_words(wanted, "addr", "replace", address, "dev", name)
    up = ip_words(wanted, "link", "set", name, "up")
    if link is None:
        half = wanted.half_made(name)
        make = shlex.join(ip_words(wanted, "link", "add", half, "type"))
        yield Change(
            f"link {name} of node0: make, it is missing",
            (
                # A bridge without ports holds an address as well, where the kernel has no dummy.
                ("sh", "-c", f"{make} dummy 2>/dev/null || {make} bridge"),
                ip_words(wanted, "link", "set", half, "alias", wanted.mark, "name", name),
                add,
                up,
            ),
        )
        return
    extra = [a for a in link.addresses if a != address]
    missing = address not in link.addresses
    if extra or missing:
        now = ", ".join(link.addresses) or "none"
        yield Change(
            f"address of {name} (node0): {now} → {address}",
            (*(ip_words(wanted, "addr", "del", a, "dev", name) for a in extra), add),
        )
    if not link.up:
        yield Change(f"link {name} of node0: up, it is down", (up,))


def _route(wanted: Wanted, address: IPv4Address) -> Words:
    words = ("route", "replace", f"{address}/32", "dev", wanted.bridge, "proto", ROUTE_PROTOCOL)
    return ip_words(wanted, *words)


def tap_changes(wanted: Wanted, tap: Tap, found: Found) -> list[Change]:
    """One node's part: its tap on the bridge, and the lab host's route to it."""
    return [*_tap(wanted, tap, found), *_tap_route(wanted, tap, found)]


def _tap(wanted: Wanted, tap: Tap, found: Found) -> Iterator[Change]:
    name = tap.name
    link = found.links.get(name)
    if link is None or not link.tap:
        half = wanted.half_made(name)
        remove: tuple[Words, ...] = ()
        what = "it is missing"
        if link is not None:
            remove = (ip_words(wanted, "link", "del", name),)
            what = f"it is a {link.kind or 'link'}"
        yield Change(
            f"tap {name}: make, {what}",
            (
                *remove,
                ip_words(wanted, "tuntap", "add", "dev", half, "mode", "tap", "user", tap.user),
                ip_words(
                    *(wanted, "link", "set", half, "alias", wanted.mark, "mtu", str(tap.mtu)),
                    *("name", name),
                ),
                ip_words(wanted, "link", "set", name, "master", wanted.bridge, "up"),
            ),
        )
        return
    if link.mtu != tap.mtu:
        words = ("link", "set", name, "mtu", str(tap.mtu))
        yield Change(f"tap {name}: mtu {link.mtu} → {tap.mtu}", (ip_words(wanted, *words),))
    if link.master != wanted.bridge:
        where = f"it is in {link.master}" if link.master else "it is detached"
        words = ("link", "set", name, "master", wanted.bridge)
        yield Change(
            f"tap {name}: enslave to {wanted.bridge}, {where}", (ip_words(wanted, *words),)
        )
    if not link.up:
        yield Change(f"tap {name}: up, it is down", (ip_words(wanted, "link", "set", name, "up"),))
    # A tap with a carrier is held by a guest: its next launch gives it to who launches then.
    if link.owner is not None and link.owner != tap.user and not link.carrier:
        yield Change(
            f"tap {name}: user {link.owner or 'nobody'} → {tap.user}",
            ((AGENT, "network", "give", wanted.namespace or "-", name, tap.user),),
        )
    # A vector guest sets it for itself when it opens the tap; a tuntap guest never does.
    if link.tx and (tap.transport == "tuntap" or (tap.transport == "auto" and not link.carrier)):
        yield Change(
            f"tap {name}: transmit checksum offload on → off, a vector guest left it on",
            ((AGENT, "network", "txoff", wanted.namespace or "-", name),),
        )


def _tap_route(wanted: Wanted, tap: Tap, found: Found) -> Iterator[Change]:
    if (f"{tap.address}/32", wanted.bridge) not in found.routes:
        yield Change(
            f"route to {tap.node} ({tap.address}): add over {wanted.bridge}, it is missing",
            (_route(wanted, tap.address),),
        )
