"""Procedure: "Se monta la particion que va a ser utilizada por el UML como su root"."""

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import root
from umlaan.operations.common import lab


@deploy("Base image")
def base() -> None:
    """The Debian image that made roots are copies of."""
    root.base(name="Base image")


@deploy("Root")
def install() -> None:
    """The root of this @uml host: there, and of the right kind."""
    root.installed(name="Root", node=lab().node(host.name.removeprefix("@uml/")))
