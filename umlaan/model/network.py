"""The lab's network: one bridge, a tap a node, and all that a node's number gives."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from pydantic import Field, model_validator

from umlaan.model.base import IfName, Mirror, Model, NameStr


class Network(Model):
    """Procedure, "Creacion de la red entre HOST-UML": br0, HTAP, the addresses of the page."""

    bridge: IfName = "br0"
    address: IPv4Interface = IPv4Interface("192.168.1.10/24")
    node_base: int = Field(100, ge=0, le=65000, description="node N is network address + base + N")
    namespace: NameStr | None = Field(
        "umlaan", description="the lab's own network namespace; None is the host itself"
    )
    promiscuous: bool = True
    multicast_snooping: bool = False
    mtu: int = Field(1500, ge=576, le=9000)
    tap: IfName = Field("HTAP", description="tap of node 1; node N>1 has its number behind it")
    node0_link: IfName | None = Field(
        "eth0", description="dummy link that holds node0's address in a namespace of our own"
    )
    gateway: IPv4Address | None = None
    nameservers: tuple[IPv4Address, ...] = Field(
        (), description="in each guest's resolv.conf; without any, that file is the user's"
    )
    mirrors: tuple[Mirror, ...] = Field(
        (),
        description="URLs of package archives that a guest without a gateway may reach through its "
        "lab host, beside those of the lab host's own apt sources",
    )
    proxy_base_port: int = Field(
        3000,
        ge=1,
        le=60000,
        description="a proxy to node N listens on this + N; {base_port} in dvs.programs",
    )

    @model_validator(mode="after")
    def _fits(self) -> Network:
        if self.address.network.prefixlen > 30:
            raise ValueError("address: a network of /30 or larger is needed, for example /24")
        if len(self.tap) > 11:
            raise ValueError("tap: at most 11 characters, the node's number is put behind it")
        return self

    def node_address(self, number: int) -> IPv4Address:
        """Address of node N: the network's address + node_base + N. ValueError if outside it."""
        address = self.address.network.network_address + self.node_base + number
        if address not in self.address.network or address == self.address.network.broadcast_address:
            raise ValueError(f"node {number} would be {address}, outside {self.address.network}")
        return address

    def tap_name(self, number: int) -> str:
        """HTAP for node 1 as in the procedure, HTAP2, HTAP3, … for the others, HTAP0 for node 0."""
        return self.tap if number == 1 else f"{self.tap}{number}"

    def proxy_port(self, number: int) -> int:
        """TCP port on which a proxy waits for node N (base + N, as the DVS derives it)."""
        return self.proxy_base_port + number


def mac_of(address: IPv4Address) -> str:
    """UML's own derivation: fe:fd and the four bytes of the address."""
    return "fe:fd:" + ":".join(f"{byte:02x}" for byte in address.packed)
