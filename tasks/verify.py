"""Procedure: "Comprobar configuracion de red", "Probar conectividad", "COMPROBAR EL ESTADO".

Called by deploy.py as its last stage, and a deploy of its own: pyinfra inventory.py tasks/verify.py
"""

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.inventory import is_uml
from umlaan.operations import verify
from umlaan.run import begin


@deploy("Verify")
def node() -> None:
    """Both sides of one node: what the host sees and what the guest sees."""
    verify.both_sides(name="Verify: both sides")


# pyinfra executes a deploy file without a name of its own; an import never comes here.
if __name__ == "builtins":
    begin()
    if is_uml(host):
        node()
