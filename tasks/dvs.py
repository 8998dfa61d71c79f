"""Procedure: "Se compilan las librerias dvs/dvk-lib …", "ARRANCAR DVS EN HOST Y UML"."""

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from tasks.network import leads
from umlaan.inventory import is_uml
from umlaan.operations import dvs as operations
from umlaan.operations import dvsup
from umlaan.operations.common import lab, lab_host


@deploy("DVS")
def build() -> None:
    """The DVS in its two variants, and the guest's tarball, on the lab host."""
    tree = lab().settings(host.name).dvs
    if tree is not None:
        operations.built(name="DVS: variants and tarball", dvs=tree)


@deploy("DVS up")
def up() -> None:
    """tests.sh 0 0 without its prompts: DVS, DC and proxies of the lab host."""
    number = lab_host().number
    if is_uml(host) and not leads():
        return
    if number is not None:
        dvsup.up(name="DVS, DC and proxies of the lab host", number=number)
    else:
        dvsup.left(name="No DVS on the lab host")


@deploy("DVS down")
def down() -> None:
    """What ``up`` brought up on the lab host, away."""
    dvsup.down(name="DVS, DC and proxies of the lab host away")
