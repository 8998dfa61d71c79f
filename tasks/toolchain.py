"""What node0 needs before anything is built: system packages by apt, only those missing."""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import toolchain
from umlaan.operations.common import lab
from umlaan.plan.toolchain import build_roots, packages


@deploy("Toolchain")
def system_packages() -> None:
    """The Debian packages that this machine's part of the lab needs; a builder's as well."""
    toolchain.packages(name="System packages", wanted=packages(lab(), host.name))


@deploy("Build roots")
def roots() -> None:
    """Other suites' compilers, on the machine that builds."""
    for root in host.loop(build_roots(lab(), host.name)):
        toolchain.build_root(name=f"Build root {root.suite}/{root.arch}", root=root)
