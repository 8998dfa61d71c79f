"""What node0 needs before anything is built: system packages by apt, only those missing."""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import toolchain
from umlaan.operations.common import lab
from umlaan.plan.toolchain import packages


@deploy("Toolchain")
def system_packages() -> None:
    """The Debian packages that this lab host's part of the lab needs."""
    toolchain.packages(name="System packages", wanted=packages(lab(), host.name))
