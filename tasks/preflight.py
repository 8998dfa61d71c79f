"""Before anything is changed: has this machine what the lab needs?"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from umlaan.operations import preflight
from umlaan.operations.common import lab_host


@deploy("Preflight")
def check() -> None:
    """The lab host; data was validated by deploy.py's first line."""
    preflight.machine(name="What the lab needs of this machine", host=lab_host())
