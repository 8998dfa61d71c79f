"""What the builds that go on side by side are waited for."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from umlaan.operations import beside


@deploy("Builds")
def awaited() -> None:
    """Base image and DVS, begun before the kernel and going on beside it, are done."""
    beside.awaited(name="Builds are done")
