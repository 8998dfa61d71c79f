"""The lab's network as it is found and as it is wanted: what plan/network.py compares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Literal

from umlaan.agent import atboot
from umlaan.model.host import LabHost
from umlaan.model.network import mac_of
from umlaan.model.node import Node, Transport

Namespace = Literal["root", "here", "missing", "broken"]
HOSTS = "/etc/hosts"
UNITS = "/etc/systemd/system"
# The protocol number of the lab's own host routes: how they are known again.
ROUTE_PROTOCOL = "85"


@dataclass(frozen=True)
class Link:
    """One network interface, as far as the lab cares. Addresses as "192.168.1.10/24"."""

    name: str
    kind: str | None = None
    mac: str = ""
    mtu: int = 1500
    alias: str | None = None
    up: bool = False
    carrier: bool = False
    promiscuous: bool = False
    master: str | None = None
    addresses: tuple[str, ...] = ()
    snooping: bool | None = None
    tap: bool = False
    tx: bool | None = None
    # Of a tap: its user, "" if it is nobody's, None where the kernel does not say.
    owner: str | None = None


@dataclass(frozen=True)
class User:
    """A process that lives in the namespace, with the taps that it holds open."""

    pid: int
    command: str
    taps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command})"


@dataclass(frozen=True)
class Account:
    """A user of the lab host, as far as the lab cares."""

    uid: int
    comment: str


@dataclass(frozen=True)
class Found:
    """What is there. Routes as (destination, device), ours apart; files by path, None if none."""

    namespace: Namespace
    links: dict[str, Link] = field(default_factory=dict)
    routes: frozenset[tuple[str, str]] = frozenset()
    own_routes: frozenset[tuple[str, str]] = frozenset()
    files: dict[str, str | None] = field(default_factory=dict)
    managers: frozenset[str] = frozenset()
    ssh: tuple[str, str] | None = None
    users: tuple[User, ...] = ()
    elsewhere: dict[str, tuple[User, ...]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)

    @property
    def ssh_link(self) -> str | None:
        """The link whose address carries the ssh session."""
        if self.ssh is None:
            return None
        for link in self.links.values():
            if any(a.split("/")[0] == self.ssh[1] for a in link.addresses):
                return link.name
        return None


def parse_found(value: dict[str, Any]) -> Found:
    """From what the agent's ``network read`` prints, or facts/network.py reads by netlink."""
    links = {row["ifname"]: _link(row, value["tx"]) for row in value["addr"]}
    routes = {
        (row["dst"] if "/" in row["dst"] else f"{row['dst']}/32", row["dev"]): row
        for row in value["route"]
        if row.get("dev") and row.get("dst", "default") != "default"
    }
    own = [key for key, row in routes.items() if str(row.get("protocol")) == ROUTE_PROTOCOL]
    ssh = value.get("ssh")
    return Found(
        namespace=value["namespace"],
        links=links,
        routes=frozenset(routes),
        own_routes=frozenset(own),
        files=dict(value["files"]),
        managers=frozenset(value["managers"]),
        ssh=(str(ssh[0]), str(ssh[1])) if ssh else None,
        users=_users(value.get("users", [])),
        elsewhere={row["name"]: _users(row["users"]) for row in value.get("elsewhere", [])},
        accounts={name: Account(**row) for name, row in value["accounts"].items() if row},
    )


def _users(rows: list[dict[str, Any]]) -> tuple[User, ...]:
    return tuple(User(row["pid"], row["command"], tuple(row["taps"])) for row in rows)


def _link(row: dict[str, Any], tx: dict[str, bool]) -> Link:
    flags = row.get("flags", [])
    info = row.get("linkinfo") or {}
    data = info.get("info_data") or {}
    snooping = data.get("mcast_snooping")
    addresses = tuple(
        f"{a['local']}/{a['prefixlen']}"
        for a in row.get("addr_info", [])
        if a.get("local") and a.get("scope") != "link" and not a.get("dynamic")
    )
    return Link(
        name=row["ifname"],
        kind=info.get("info_kind"),
        mac=row.get("address", ""),
        mtu=row.get("mtu", 0),
        alias=row.get("ifalias"),
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        promiscuous="PROMISC" in flags,
        master=row.get("master"),
        addresses=addresses,
        snooping=None if snooping is None else bool(snooping),
        tap=info.get("info_kind") == "tun" and _is_tap(data.get("type"), row),
        tx=tx.get(row["ifname"]),
        owner=str(data.get("user", "")) if data.get("type") else None,
    )


def _is_tap(said: str | None, row: dict[str, Any]) -> bool:
    """Kernels before 4.16 do not say which of both it is; a tun has no MAC address."""
    return said == "tap" if said else bool(row.get("address"))


@dataclass(frozen=True)
class Tap:
    """What one node needs on its lab host."""

    node: str
    name: str
    address: IPv4Address
    mac: str
    mtu: int
    transport: Transport
    user: str


@dataclass(frozen=True)
class Wanted:
    """What the data ask for on one lab host."""

    lab: str
    namespace: str | None
    bridge: str
    address: IPv4Interface
    mtu: int
    promiscuous: bool
    snooping: bool
    node0_link: str | None
    node0_address: IPv4Address | None
    taps: tuple[Tap, ...]
    peers: tuple[tuple[str, str], ...]
    state_dir: str
    user: str
    user_mark: str

    @property
    def accounts(self) -> tuple[str, ...]:
        """The users that the lab's UMLs here run as, and the lab's own."""
        return tuple(dict.fromkeys([self.user, *(tap.user for tap in self.taps)]))

    @property
    def mark(self) -> str:
        """The alias of every link that is this lab's, and the mark of its blocks in files."""
        return f"umlaan:{self.lab}"

    @property
    def mac(self) -> str:
        """The bridge's own MAC: derived, so that guests know a bridge that was made again."""
        return mac_of(self.address.ip)

    @property
    def hosts_file(self) -> str:
        """The hosts file that the lab's programs see: ``ip netns exec`` lays the first one over."""
        return f"/etc/netns/{self.namespace}/hosts" if self.namespace else HOSTS

    @property
    def script(self) -> str:
        """What the boot unit runs."""
        return f"{self.state_dir}/network.sh"

    @property
    def unit(self) -> str:
        """The unit that makes the network again at boot; what starts nodes comes after it."""
        return f"umlaan-{self.lab}-network.service"

    @property
    def unit_file(self) -> str:
        return f"{UNITS}/{self.unit}"

    @property
    def unit_link(self) -> str:
        """There where the unit is enabled."""
        return f"{atboot.WANTS}/{self.unit}"

    @property
    def nodes_unit(self) -> str:
        """The unit that starts at boot the nodes that were up."""
        return atboot.unit(self.lab)

    @property
    def nodes_file(self) -> str:
        return f"{UNITS}/{self.nodes_unit}"

    @property
    def nodes_link(self) -> str:
        """There where the unit is enabled."""
        return f"{atboot.WANTS}/{self.nodes_unit}"

    @property
    def nodes_done(self) -> str:
        """There where the unit is up in this boot: only then it stops the nodes at its end."""
        return atboot.done_path(self.lab)

    @property
    def agent(self) -> str:
        """The agent that the unit runs: beside the lab's state, a checkout may be elsewhere."""
        return f"{self.state_dir}/at-boot/agent-{atboot.key()}.zip"

    @property
    def nm_file(self) -> str:
        """Keeps NetworkManager off the lab's links."""
        return f"/etc/NetworkManager/conf.d/umlaan-{self.lab}.conf"

    @property
    def networkd_file(self) -> str:
        """Keeps systemd-networkd off the lab's links."""
        return f"/etc/systemd/network/05-umlaan-{self.lab}.network"

    @property
    def files(self) -> tuple[str, ...]:
        """The files whose text decides."""
        names = [HOSTS, self.hosts_file, self.script, self.unit_file, self.unit_link]
        names += [self.nodes_file, self.nodes_link, self.nodes_done, self.agent]
        if self.namespace is None:
            names += [self.nm_file, self.networkd_file]
        return tuple(dict.fromkeys(names))

    @property
    def half_made_prefix(self) -> str:
        """How the names of this lab's links begin that do not carry the mark yet."""
        return f"uml{_hash(self.lab)[:6]}"

    def half_made(self, link: str) -> str:
        """A link's name until it carries the mark: only then it gets its own."""
        return f"{self.half_made_prefix}{_hash(link)[:5]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def wanted_of(host: LabHost, nodes: tuple[Node, ...], peers: list[tuple[str, str]]) -> Wanted:
    """What a lab host with these nodes needs; peers are all the lab's (name, address)."""
    network = host.network
    return Wanted(
        lab=host.lab,
        namespace=network.namespace,
        bridge=network.bridge,
        address=network.address,
        mtu=network.mtu,
        promiscuous=network.promiscuous,
        snooping=network.multicast_snooping,
        node0_link=host.node0_link,
        node0_address=network.node_address(host.number) if host.number is not None else None,
        taps=tuple(
            Tap(
                *(n.name, n.tap, n.address, n.mac, network.mtu, n.settings.transport),
                user=n.settings.user or host.user,
            )
            for n in nodes
        ),
        peers=tuple(peers),
        state_dir=host.state_dir,
        user=host.user,
        user_mark=host.user_mark,
    )
