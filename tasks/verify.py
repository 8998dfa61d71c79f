"""Procedure: "Comprobar configuracion de red", "Probar conectividad", "COMPROBAR EL ESTADO".

Called by deploy.py as its last stage, and a deploy of its own: pyinfra inventory.py tasks/verify.py
"""

from pyinfra.api.deploy import deploy
from pyinfra.context import host, state

from umlaan.inventory import is_uml
from umlaan.operations import standing, verify
from umlaan.run import begin, current


@deploy("Verify")
def node() -> None:
    """Both sides of one node: what the host sees and what the guest sees."""
    verify.both_sides(name="Verify: both sides")


@deploy("Verify")
def apart() -> None:
    """Where --limit names no node, what the lab host's nodes are; nothing is asked of them."""
    limited = state.limit_hosts or ()
    if limited and not any(is_uml(each) for each in limited):
        current().apart = True
        standing.noted(name="Verify: nodes that this run leaves alone")


# pyinfra executes a deploy file without a name of its own; an import never comes here.
if __name__ == "builtins":
    begin()
    if is_uml(host):
        node()
