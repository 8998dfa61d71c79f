"""Stops nodes cleanly and leaves all else: pyinfra inventory.py tasks/down.py --limit @uml/node2

Procedure: none; there a person types poweroff in the guest's terminal.
"""

from pyinfra.context import host

from tasks import launch
from umlaan.inventory import is_uml
from umlaan.operations import standing
from umlaan.run import begin

begin(asked="down")

if is_uml(host):
    launch.stop()
    standing.noted(name="What it is now")
