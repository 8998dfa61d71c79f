"""A node's root: its file system, the user's own or an image that umlaan makes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from umlaan.model.base import DiskPath, ImageSize, Mirror, Model, Package, Suite


class MadeRoot(Model):
    """An ext4 image of Debian that umlaan makes with mmdebstrap and mke2fs -d."""

    suite: Suite = "bookworm"
    arch: Literal["amd64", "i386"] = "amd64"
    mirror: Mirror | None = None
    packages: tuple[Package, ...] = Field((), description="beyond what a node needs")
    size: ImageSize = "2G"


class Root(Model):
    """Exactly one of device (a partition or image of the user's) and made.

    Procedure: "Se monta la particion que va a ser utilizada por el UML como su root". A device is
    never formatted and never repartitioned. As one word: ``/dev/sdb6`` or ``/srv/node1.ext4``.
    """

    device: DiskPath | None = None
    made: MadeRoot | None = None
    install_sshd: bool = Field(False, description="install openssh-server in a root that lacks it")

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"device": value}
        if isinstance(value, dict) and not value.get("device") and not value.get("made"):
            return {**value, "made": {}}
        return value

    @model_validator(mode="after")
    def _not_both(self) -> Root:
        if self.device and self.made:
            raise ValueError("give device or made, not both")
        return self
