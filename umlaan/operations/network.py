"""Procedure, "Creacion de la red entre HOST-UML": the bridge, the taps, the routes, the names."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Literal

from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.context import host as context_host

from umlaan.facts.base import agent
from umlaan.facts.network import found_network
from umlaan.model.host import LabHost
from umlaan.model.node import Node
from umlaan.operations.common import LabCommand, carrier, executing, fail, lab, why
from umlaan.operations.operation import operation
from umlaan.plan import labuser
from umlaan.plan.network import Change, shared_changes, tap_changes
from umlaan.plan.network_down import down_changes, in_use, namespaces_that_stay
from umlaan.plan.network_files import boot_changes, hosts_changes, keep_off_changes
from umlaan.plan.network_refusals import refusals, tap_refusals
from umlaan.plan.network_state import Found, Wanted, wanted_of

# A process that was just killed takes a moment to leave the namespace.
LINGER_S = 3.0
Commands = Generator[StringCommand, None, None]


def wanted_on(host: LabHost) -> Wanted:
    """What the whole inventory asks of one lab host; --limit does not narrow it."""
    return wanted_of(host, lab().nodes_on(host.name), lab().peers())


def _make(changes: list[Change]) -> Commands:
    # All reasons first: pyinfra plans an operation only as far as its first command.
    for change in changes:
        why(change.reason)
    for change in changes:
        yield LabCommand(change.shell(agent(carrier())))


@operation()
def up(host: LabHost) -> Commands:
    """
    The lab host's part of the network: namespace, bridge, node0's link, names of the nodes, and
    the user that the UMLs run as.

    What has not the lab's mark is refused, with its remedies, never taken over. Taps and routes
    of the nodes are ``tap``'s.

    + host: the lab host

    **Example:**

    .. code:: python

        network.up(name="Bridge", host=lab_host())
    """
    wanted = wanted_on(host)
    found = found_network(carrier(), wanted)
    refused = [*refusals(wanted, found), *labuser.refusals(wanted, found)]
    if refused:
        yield from fail("\n".join(refused))
        return
    changes = [*labuser.changes(wanted, found), *keep_off_changes(wanted, found)]
    changes += shared_changes(wanted, found)
    changes += [*hosts_changes(wanted, found), *boot_changes(wanted, found)]
    yield from _make(changes)


@operation()
def tap(node: Node, transport: Literal["tuntap", "vector"] | None = None) -> Commands:
    """
    One node's part: its tap, its UML's user's, up and on the bridge, and the host route to it.

    + node: the UML node; runs for its @uml host, works on the lab host
    + transport: what the node will be launched with, if known better than ``node.transport``

    **Example:**

    .. code:: python

        network.tap(name="Tap of node1", node=node)
    """
    wanted = wanted_on(lab().host(node.host))
    wish = next(t for t in wanted.taps if t.node == node.name)
    if transport is not None:
        wish = replace(wish, transport=transport)
    found = found_network(carrier(), wanted)
    refused = [*tap_refusals(wanted, wish, found), *labuser.tap_refusals(wanted, wish, found)]
    if refused:
        yield from fail("\n".join(refused))
        return
    yield from _make(tap_changes(wanted, wish, found))


def _found_leaving(wanted: Wanted) -> Found:
    """As it will be once the nodes are stopped: planned without them, waited for a moment."""
    found = found_network(carrier(), wanted, leaving=True)
    if not executing():
        return replace(found, users=(), elsewhere=dict.fromkeys(found.elsewhere, ()))
    deadline = time.monotonic() + LINGER_S
    while found.users and time.monotonic() < deadline:
        time.sleep(0.2)
        found = found_network(carrier(), wanted, leaving=True)
    return found


@operation()
def down(host: LabHost) -> Commands:
    """
    Remove the lab's links, its namespace and its lines in files: only what has its mark.

    A tap that a process still holds fails the operation before anything is removed; a namespace in
    which others live stays, and is said.

    + host: the lab host

    **Example:**

    .. code:: python

        network.down(name="Network away", host=lab_host())
    """
    wanted = wanted_on(host)
    found = _found_leaving(wanted)
    used = in_use(wanted, found)
    if used:
        yield from fail("\n".join(used))
        return
    for stays in namespaces_that_stay(wanted, found):
        logger.warning(f"{context_host.print_prefix}{stays}")
    yield from _make([*down_changes(wanted, found), *labuser.away(wanted, found)])
