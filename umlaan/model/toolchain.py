"""Where compilers run: on the lab host itself, or in a Debian build root of their own."""

from __future__ import annotations

from typing import Literal

from umlaan.model.base import Mirror, Model, Package, Suite


class BuildRoot(Model):
    """A Debian suite and architecture, made once by mmdebstrap and keyed by its content."""

    suite: Suite
    arch: Literal["amd64", "i386", "arm64"] = "amd64"
    mirror: Mirror | None = None
    packages: tuple[Package, ...] = ()


Toolchain = Literal["native"] | BuildRoot
