"""What umlaan refuses to do to a lab host's network: things of others, clashes, the ssh session."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from umlaan.agent.blocks import without
from umlaan.plan.network import bridge_changes, holder_of, ip_words
from umlaan.plan.network_state import Found, Tap, Wanted


def refusals(wanted: Wanted, found: Found) -> list[str]:
    """What forbids to work on the bridge at all; each line says what to do about it."""
    return list(_refusals(wanted, found))


def tap_refusals(wanted: Wanted, tap: Tap, found: Found) -> list[str]:
    """What forbids to work on one node's tap."""
    return list(_tap_refusals(wanted, tap, found))


def _refusals(wanted: Wanted, found: Found) -> Iterator[str]:
    yield from _foreign(wanted.bridge, "network.bridge", wanted, found)
    if wanted.node0_link:
        yield from _foreign(wanted.node0_link, "network.node0_link", wanted, found)
    holder = holder_of(wanted.address.ip, found, wanted.bridge)
    if holder:
        yield f"network.address: {wanted.address.ip} is on {holder} already; choose another one"
    if wanted.node0_link and wanted.node0_address:
        holder = holder_of(wanted.node0_address, found, wanted.node0_link)
        if holder:
            yield f"address of node0: {wanted.node0_address} is on {holder} already; remove it"
    if not wanted.namespace:
        yield from _ssh(wanted, found)
        yield from _names(wanted, found)


def _foreign(name: str, key: str, wanted: Wanted, found: Found) -> Iterator[str]:
    link = found.links.get(name)
    if link is None or link.alias == wanted.mark:
        return
    where = f" in network namespace {wanted.namespace}" if wanted.namespace else ""
    alias = link.alias or ""
    owner = "was not made by umlaan"
    if alias.startswith("umlaan:"):
        owner = f"belongs to lab {alias.removeprefix('umlaan:')}"
    remove = shlex.join(ip_words(wanted, "link", "del", name))
    hand_over = shlex.join(ip_words(wanted, "link", "set", name, "alias", wanted.mark))
    yield (
        f"{name} is there already{where} and {owner}; it is left alone. Set {key} to another "
        f"name, or remove it ({remove}), or hand it over to this lab ({hand_over})"
    )


def _ssh(wanted: Wanted, found: Found) -> Iterator[str]:
    if found.ssh is None:
        return
    if found.ssh_link == wanted.bridge and list(bridge_changes(wanted, found)):
        yield (
            f"bridge {wanted.bridge} carries this ssh session ({found.ssh[1]}) and would be "
            "changed; come in over another address"
        )
    for tap in wanted.taps:
        if found.ssh[0] == str(tap.address):
            yield (
                f"your ssh session comes from {tap.address}, the address of {tap.node}: its route "
                "would be cut; give the node another address (node.address)"
            )


def _names(wanted: Wanted, found: Found) -> Iterator[str]:
    text = without(found.files.get(wanted.hosts_file) or "", wanted.mark)
    addresses = dict(wanted.peers)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        # Debian names the machine itself 127.0.1.1: no other machine is meant by that.
        if not words or words[0].startswith("127.") or ":" in words[0]:
            continue
        for name in words[1:]:
            if addresses.get(name, words[0]) != words[0]:
                yield (
                    f"{wanted.hosts_file}:{number} names {name} {words[0]}, the lab gives it "
                    f"{addresses[name]}: remove that line, or set the node's address (node.address)"
                )


def _tap_refusals(wanted: Wanted, tap: Tap, found: Found) -> Iterator[str]:
    yield from _foreign(tap.name, "network.tap", wanted, found)
    holder = holder_of(tap.address, found, None)
    if holder:
        yield (
            f"address of {tap.node}: {tap.address} is the lab host's own, on {holder}; "
            "give the node another address (node.address)"
        )
    for link in found.links.values():
        if link.mac == tap.mac:
            yield (
                f"MAC of {tap.node}: {tap.mac} is the lab host's own, of {link.name}; "
                "give the node another address (node.address)"
            )
