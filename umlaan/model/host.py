"""A lab host: the machine that carries nodes."""

from __future__ import annotations

import hashlib

from pydantic import Field

from umlaan.model.base import AbsPath, Model, NameStr, OneLine
from umlaan.model.network import Network

# useradd takes no more.
USER_NAME_MAX = 32


class LabHost(Model):
    """node0 of the procedure, or one more machine that carries nodes."""

    name: OneLine = Field(..., description="pyinfra's name: @local or an ssh host")
    number: int | None = Field(0, description="its DVS node number; None where it runs no DVS")
    network: Network
    lab: NameStr = "umlaan"
    state_dir: AbsPath
    cache_dir: AbsPath

    @property
    def label(self) -> str:
        """node0, or the machine's own name where it is no DVS node."""
        return f"node{self.number}" if self.number is not None else self.name.lstrip("@")

    @property
    def user(self) -> str:
        """The user that the lab's UMLs run as here, where node.user names none."""
        name = f"umlaan-{self.lab}"
        if len(name) <= USER_NAME_MAX:
            return name
        return f"umlaan-{self.lab[:12]}-{hashlib.sha256(self.lab.encode()).hexdigest()[:8]}"

    @property
    def user_mark(self) -> str:
        """What that user's comment says: whose it is. useradd takes no colon there."""
        return f"umlaan lab {self.lab}"

    @property
    def log_dir(self) -> str:
        """Where every long command keeps its log."""
        return f"{self.state_dir}/log"

    @property
    def node0_link(self) -> str | None:
        """The dummy link that holds node0's address; none on the host itself or without node0."""
        if self.network.namespace is None or self.number is None:
            return None
        return self.network.node0_link
