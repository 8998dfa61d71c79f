"""Procedure, "Creacion de la red entre HOST-UML"."""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host, state

from umlaan.operations import network
from umlaan.operations.common import lab, lab_host


@deploy("Network")
def bridge() -> None:
    """br0 with its address, node0's link and the nodes' names, on the lab host."""
    network.up(name="Bridge and names", host=lab_host())


@deploy("Network")
def tap() -> None:
    """A node's tap on the bridge, and the host route to it."""
    if leads():
        network.up(name="Bridge and names", host=lab_host())
    node = lab().node(host.name.removeprefix("@uml/"))
    network.tap(name="Tap and route", node=node)


@deploy("Network away")
def away() -> None:
    """What ``bridge`` and ``tap`` made on the lab host, and only that."""
    network.down(name="Links, namespace and names away", host=lab_host())


def leads() -> bool:
    """Where --limit leaves the lab host out, the first of its limited nodes does its part."""
    limited = [other.name for other in state.limit_hosts or ()]
    here = lab_host().name
    if not limited or here in limited:
        return False
    acting = [n.name for n in lab().nodes_on(here) if f"@uml/{n.name}" in limited]
    return bool(acting) and host.name == f"@uml/{acting[0]}"
