"""Procedure: "Se instala el directorio dvs en ese filesystem", and what makes a root node1."""

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import dvsup, guest
from umlaan.operations.common import lab


@deploy("Guest")
def identity() -> None:
    """Hostname, hosts, address, fstab, keys and init of this @uml host."""
    guest.identity(name="Guest: identity", node=lab().node(host.name.removeprefix("@uml/")))


@deploy("DVS tree")
def dvs_tree() -> None:
    """The DVS's guest variant inside this @uml host's root."""
    node = lab().node(host.name.removeprefix("@uml/"))
    tree = lab().settings(host.name).dvs
    if tree is not None:
        guest.dvs_tree(name="Guest: DVS tree", node=node, dvs=tree)


@deploy("Guest kernel modules")
def modules() -> None:
    """The modules of this @uml host's kernel inside its root; none where it has none."""
    guest.modules(name="Guest: kernel modules", node=lab().node(host.name.removeprefix("@uml/")))


@deploy("DVS up")
def dvs_up() -> None:
    """test_uml.sh 1 0 without its prompts: DVS, DC and proxies in the guest, nodes joined."""
    number = lab().node(host.name.removeprefix("@uml/")).number
    dvsup.up(name="DVS, DC and proxies of the guest", number=number)
    dvsup.joined(name="Proxies connected, nodes joined", number=number)
