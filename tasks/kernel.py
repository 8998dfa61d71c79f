"""Procedure: "Se compila el kernel UML con el archivo": make ARCH=um, once for each kernel."""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import kernel
from umlaan.operations.common import lab
from umlaan.plan.kernel import kernels_on


@deploy("Kernels")
def kernels() -> None:
    """Every distinct UML kernel of the nodes that this lab host carries."""
    for one in host.loop(kernels_on(lab(), host.name)):
        kernel.built(name=f"UML kernel from {one.source}", kernel=one)
