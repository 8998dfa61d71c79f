"""Procedure: "Se compila el kernel UML con el archivo": make ARCH=um, once for each kernel."""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import kernel, toolchain
from umlaan.operations.common import lab
from umlaan.plan.kernel import kernels_on
from umlaan.plan.toolchain import build_roots


@deploy("Kernels")
def kernels() -> None:
    """Every distinct UML kernel of the nodes that this lab host carries, and its toolchain."""
    for root in host.loop(build_roots(lab(), host.name)):
        toolchain.build_root(name=f"Build root {root.suite}/{root.arch}", root=root)
    for one in host.loop(kernels_on(lab(), host.name)):
        kernel.built(name=f"UML kernel from {one.source}", kernel=one)
