"""Procedure, "Creacion de la red entre HOST-UML"."""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host, state

from umlaan.inventory import is_uml
from umlaan.operations import network
from umlaan.operations.common import lab, lab_host


@deploy("Network")
def connect() -> None:
    """br0 with its address on the lab host; a tap on it and a host route for each node."""
    if _leads():
        network.up(name="Bridge and names", host=lab_host())
    if is_uml(host):
        node = lab().node(host.name.removeprefix("@uml/"))
        network.tap(name="Tap and route", node=node)


@deploy("Network away")
def disconnect() -> None:
    """What ``connect`` made on the lab host, and only that."""
    if not is_uml(host):
        network.down(name="Links, namespace and names away", host=lab_host())


def _leads() -> bool:
    """The lab host itself; where --limit leaves it out, the first of its limited nodes."""
    limited = state.limit_hosts
    if not is_uml(host) or not limited:
        return not is_uml(host)
    here = lab_host().name
    if any(other.name == here for other in limited):
        return False
    names = [node.name for node in lab().nodes_on(here)]
    acting = [n for n in names if any(other.name == f"@uml/{n}" for other in limited)]
    return bool(acting) and host.name == f"@uml/{acting[0]}"
