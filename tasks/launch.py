"""Procedure: "EN OTRA SESION, ARRANCAR UML": nsenter -p -t $DC0 ./linux con0=… umid=node1 …"""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import node, together
from umlaan.operations.common import lab, lab_host


@deploy("Launch")
def revive() -> None:
    """A node that hangs is stopped, so that the stages before the launch can reach its root."""
    node.answering(name="Not hanging", node=lab().node(host.name.removeprefix("@uml/")))


@deploy("Launch")
def anew() -> None:
    """A node that must start anew with its peers is stopped, where their proxies ask for it."""
    tree = lab().settings(host.name).dvs
    if tree is not None and tree.programs.proxy_restart == "lab":
        one = lab().node(host.name.removeprefix("@uml/"))
        together.ended(name="Proxies that outlived a peer", node=one)


@deploy("Launch")
def machine_anew() -> None:
    """A lab host that is a side itself is rebooted where only that ends its proxies."""
    tree = lab().settings(host.name).dvs
    number = lab_host().number
    if tree is not None and tree.programs.proxy_restart != "proxy" and number is not None:
        together.rebooted(name="The lab host's own proxies", number=number)


@deploy("Launch")
def launch() -> None:
    """The node of this @uml host, up as declared and answering."""
    node.running(name="Launch", node=lab().node(host.name.removeprefix("@uml/")))


@deploy("Stop")
def stop() -> None:
    """The node of this @uml host, down."""
    node.stopped(name="Stop", node=lab().node(host.name.removeprefix("@uml/")))
