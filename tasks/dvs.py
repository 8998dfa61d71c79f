"""Procedure: "Se compilan las librerias dvs/dvk-lib …", "Se hace un tar del directorio DVS"."""

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import dvs as operations
from umlaan.operations.common import lab


@deploy("DVS")
def build() -> None:
    """The DVS in its two variants, and the guest's tarball, on the lab host."""
    tree = lab().settings(host.name).dvs
    if tree is not None:
        operations.built(name="DVS: variants and tarball", dvs=tree)
