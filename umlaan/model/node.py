"""A UML node: a number, a root, a kernel and a command line. The number gives the rest."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Literal

from pydantic import Field, field_validator

from umlaan.model.base import AbsPath, DiskPath, Memory, Model, OneLine, UserName, WordPath
from umlaan.model.kernel import Kernel
from umlaan.model.network import Network, mac_of
from umlaan.model.root import Root

Transport = Literal["auto", "tuntap", "vector"]


class NodeSettings(Model):
    """What a user sets for all nodes or for one: the values of the procedure's command line."""

    mem: Memory = "1024M"
    transport: Transport = "auto"
    extra_args: tuple[OneLine, ...] = ()
    disks: tuple[DiskPath, ...] = Field((), max_length=7, description="ubdb, ubdc, … in order")
    hostfs: WordPath | None = Field(None, description="a directory of the lab host at /host")
    hostfs_writable: bool = Field(False, description="the guest may write there as node.user may")
    user: UserName | None = Field(
        None, description="runs the UML; the lab's own if none; root: the procedure's way"
    )
    dcid: int | None = Field(0, ge=0, le=31, description="DC whose PID namespace holds the UML")
    tmpdir: AbsPath | None = Field(None, description="holds the guest's memory; /dev/shm if none")
    address: IPv4Address | None = None
    console_root: bool = Field(False, description="the console is root without a password")
    boot_timeout: int = Field(
        90, ge=5, le=3600, description="seconds without progress until ssh answers"
    )

    @field_validator("extra_args")
    @classmethod
    def _no_space(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if not word or any(c.isspace() for c in word):
                raise ValueError(f"{word!r}: one argument each, without blanks")
        return value


class Node(Model):
    """One UML node of the lab, with everything that its number gives."""

    number: int = Field(..., ge=0, le=31, description="DVS nodes are bits of a 32-bit map")
    host: OneLine = Field(..., description="pyinfra's name of the lab host that carries it")
    network: Network
    kernel: Kernel
    root: Root
    settings: NodeSettings
    state_dir: AbsPath

    @property
    def name(self) -> str:
        """node1, as in the procedure's umid, hostname and hosts."""
        return f"node{self.number}"

    @property
    def umid(self) -> str:
        """The name of the UML instance."""
        return self.name

    @property
    def address(self) -> IPv4Address:
        """The guest's address: its own if given, else the network's + base + number."""
        return self.settings.address or self.network.node_address(self.number)

    @property
    def mac(self) -> str:
        """The guest's MAC, derived from its address."""
        return mac_of(self.address)

    @property
    def tap(self) -> str:
        """The tap on the lab host that carries this node's traffic."""
        return self.network.tap_name(self.number)

    @property
    def dir(self) -> str:
        """The node's own folder on the lab host: image, launch record, console log, uml_dir."""
        return f"{self.state_dir}/nodes/{self.name}"

    @property
    def root_path(self) -> str:
        """What ubda names: the user's device, or the image in the node's folder."""
        return self.root.device or f"{self.dir}/root.ext4"

    @property
    def uml_dir(self) -> str:
        """Where this node's umid folder with pid and mconsole stands."""
        return f"{self.dir}/uml"

    @property
    def kernel_dir(self) -> str:
        """Where this node's kernel stands on the lab host: linux, config, stamp.json, modules/."""
        return f"{self.state_dir}/kernels/{self.kernel.id}"

    @property
    def kernel_path(self) -> str:
        """The program that is the node's kernel."""
        return f"{self.kernel_dir}/linux"
