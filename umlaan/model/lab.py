"""The lab: its lab hosts and their nodes, built from what the inventory says of each host."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from umlaan.model import places
from umlaan.model.base import DataError, Model, NameStr, OneLine, OwnPath, with_dotted
from umlaan.model.dvs import Dvs
from umlaan.model.host import LabHost
from umlaan.model.hostkernel import Builder, HostBoot, HostModule
from umlaan.model.kernel import Kernel
from umlaan.model.measure import Measure
from umlaan.model.network import Network
from umlaan.model.node import Node, NodeSettings
from umlaan.model.root import Root

_UML_NAME = re.compile(r"node(0|[1-9][0-9]{0,3})")


class Settings(Model):
    """Every key that group_data may hold, with its default. A user changes only these."""

    lab: NameStr = "umlaan"
    state_dir: OwnPath | None = Field(
        None, description="the lab's own folder; default /var/lib/umlaan/LAB"
    )
    cache_dir: OwnPath = "/root/.cache/umlaan"
    network: Network = Network()
    kernel: Kernel = Kernel()
    host_kernel: Kernel | None = None
    host_boot: HostBoot = HostBoot()
    host_modules: tuple[HostModule, ...] = ()
    dvs: Dvs | None = Dvs()
    measure: Measure = Measure()
    root: Root = Root()
    node: NodeSettings = NodeSettings()
    host_dvk: bool = Field(True, description="node0 is the lab host itself; else a UML node too")
    reboot: Literal["never", "when_needed"] = Field(
        "never", description="whether a run may reboot a lab host where only that does it"
    )
    number: int | None = Field(None, ge=0, le=31, description="this host's node number")
    lab_host: OneLine | None = Field(None, description="which lab host carries this node")
    builder: OneLine | None = Field(
        None, description="host of the group builder; default its first"
    )

    @field_validator("state_dir")
    @classmethod
    def _its_own(cls, value: str | None) -> str | None:
        if value is not None and places.is_shared(value):
            raise ValueError(
                "must be a folder of the lab's own: destroy removes log, run, ssh and others in "
                f"it; for example {value.rstrip('/')}/umlaan"
            )
        return value

    @field_validator("host_modules")
    @classmethod
    def _apart(cls, value: tuple[HostModule, ...]) -> tuple[HostModule, ...]:
        seen: dict[str, str] = {}
        for module in value:
            if module.name in seen:
                raise ValueError(f"{module.name} is there twice: each has a name of its own")
            places = {place.replace("{file}", module.file) for place in module.places}
            for what in (module.name, *sorted(places)):
                if what in seen:
                    raise ValueError(f"{seen[what]} and {module.name} have one place: {what}")
                seen[what] = module.name
        return value

    @field_validator("cache_dir")
    @classmethod
    def _outlives_the_lab(cls, value: str, info: ValidationInfo) -> str:
        state = info.data.get("state_dir")
        if state is not None and places.is_within(value, state):
            raise ValueError(
                f"must stand outside state_dir ({state}): destroy leaves what is built, and "
                "removes what is in there"
            )
        if state is not None and places.is_within(state, value):
            raise ValueError(f"must not hold state_dir ({state}): what is built there outlives it")
        return value


@dataclass(frozen=True)
class HostData:
    """One host of the inventory as pyinfra sees it, connector keys already taken out."""

    name: str
    is_uml: bool
    data: dict[str, Any] = field(default_factory=dict)
    is_builder: bool = False


Locate = Callable[[str, str], str]


def _nowhere(host: str, key: str) -> str:
    return f"data of {host}"


def settings_of(host: HostData, locate: Locate = _nowhere) -> Settings:
    """Validate one host's data. DataError with every fault, each with its place."""
    data = with_dotted(host.data)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise DataError("\n".join(_lines(error, host.name, locate))) from None


def _lines(error: ValidationError, host: str, locate: Locate) -> list[str]:
    lines = []
    for fault in error.errors():
        loc = [str(part) for part in fault["loc"]]
        key = ".".join(_shown(part) for part in loc)
        place = locate(host, loc[0] if loc else "")
        if fault["type"] == "extra_forbidden":
            allowed = ", ".join(_siblings(fault["loc"]))
            lines.append(f"{place}: {key}: unknown key; allowed: {allowed}")
            continue
        message = fault["msg"].removeprefix("Value error, ")
        message = message if len(message) <= 400 else f"{message[:397]}..."
        lines.append(f"{place}: {key}: {message} (given: {_short(fault['input'])})")
    return lines


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = Settings
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        field_info = getattr(model, "model_fields", {}).get(part)
        if field_info is None:
            continue
        model = _model_in(field_info.annotation) or model
    return sorted(model.model_fields)


def _model_in(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found is not None:
            return found
    return None


def _shown(key: str) -> str:
    """A key as one word of a message, whatever was typed."""
    return key if key.isprintable() and 0 < len(key) <= 80 else _short(key)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Lab(Model):
    """Lab hosts with their nodes, and the settings each was built from."""

    name: NameStr
    hosts: tuple[LabHost, ...]
    nodes: tuple[Node, ...]
    host_settings: dict[str, Settings]
    node_settings: dict[int, Settings]
    builders: tuple[Builder, ...] = ()
    builder_hosts: tuple[LabHost, ...] = Field((), description="builders as operations see them")

    def builder(self, host: str) -> Builder | None:
        """The machine that builds for a lab host; None where the lab host builds itself."""
        wanted = self.host_settings[host].builder
        return next((b for b in self.builders if wanted in (None, b.name)), None)

    def host(self, name: str) -> LabHost:
        """The lab host or builder of that pyinfra name. StopIteration if none."""
        return next(h for h in (*self.hosts, *self.builder_hosts) if h.name == name)

    def node(self, name: str) -> Node:
        """The node of that name. DataError if none."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(n.name for n in self.nodes) or "none"
        raise DataError(f"{name}: no such node; the inventory has: {known}")

    def nodes_on(self, host: str) -> tuple[Node, ...]:
        """The nodes which a lab host carries, by number."""
        return tuple(n for n in self.nodes if n.host == host)

    def settings(self, pyinfra_name: str) -> Settings:
        """The settings of a lab host or node by pyinfra's name."""
        if pyinfra_name in self.host_settings:
            return self.host_settings[pyinfra_name]
        return self.node_settings[self.node(pyinfra_name.removeprefix("@uml/")).number]

    def peers(self) -> list[tuple[str, str]]:
        """(name, address) of every DVS node, node0 first: what each hosts file holds."""
        rows = [
            (h.number, str(h.network.node_address(h.number)))
            for h in self.hosts
            if h.number is not None
        ]
        rows += [(n.number, str(n.address)) for n in self.nodes]
        return [(f"node{number}", address) for number, address in sorted(rows)]


def build_lab(rows: list[HostData], locate: Locate = _nowhere) -> Lab:
    """The whole model from the whole inventory. DataError names file and key of each fault."""
    faults: list[str] = []
    settings: dict[str, Settings] = {}
    for row in rows:
        try:
            settings[row.name] = _own_namespace(settings_of(row, locate))
        except DataError as error:
            faults.extend(str(error).splitlines())
    if faults:
        raise DataError("\n".join(dict.fromkeys(faults)))

    hosts = tuple(
        _lab_host(row.name, settings[row.name], first=index == 0)
        for index, row in enumerate(r for r in rows if not r.is_uml and not r.is_builder)
    )
    if not hosts:
        raise DataError("inventory.py: no lab host; node0 = ['@local'] is the smallest one")
    builders = tuple(
        Builder(name=row.name, cache_dir=settings[row.name].cache_dir)
        for row in rows
        if row.is_builder
    )
    _check_builders(hosts, settings, builders, locate)
    nodes = []
    for row in rows:
        if row.is_uml:
            nodes.append(_node(row, settings[row.name], hosts, locate))
    nodes.sort(key=lambda n: n.number)
    lab = Lab(
        name=hosts[0].lab,
        hosts=hosts,
        nodes=tuple(nodes),
        host_settings={
            name: settings[name] for name in (*(h.name for h in hosts), *(b.name for b in builders))
        },
        node_settings={n.number: settings[f"@uml/{n.name}"] for n in nodes},
        builders=builders,
        builder_hosts=tuple(
            _lab_host(b.name, settings[b.name], first=False).model_copy(
                update={"number": None, "state_dir": f"{b.cache_dir}/built"}
            )
            for b in builders
        ),
    )
    _check_clashes(lab, locate)
    places.check(lab, locate)
    return lab


def _check_builders(
    hosts: tuple[LabHost, ...],
    settings: dict[str, Settings],
    builders: tuple[Builder, ...],
    locate: Locate,
) -> None:
    known = ", ".join(b.name for b in builders) or "none; inventory.py has no group builder"
    for host in hosts:
        wanted = settings[host.name].builder
        if wanted is not None and all(b.name != wanted for b in builders):
            place = locate(host.name, "builder")
            raise DataError(f"{place}: builder: {wanted!r} is no builder; allowed: {known}")


def _own_namespace(settings: Settings) -> Settings:
    """A lab that does not name its namespace gets one of its own name, so that labs never meet."""
    if "namespace" in settings.network.model_fields_set:
        return settings
    network = settings.network.model_copy(update={"namespace": settings.lab})
    return settings.model_copy(update={"network": network})


def _lab_host(name: str, settings: Settings, *, first: bool) -> LabHost:
    number = settings.number
    if number is None and settings.host_dvk and first:
        number = 0
    return LabHost(
        name=name,
        number=number if settings.host_dvk else None,
        network=settings.network,
        lab=settings.lab,
        state_dir=settings.state_dir or f"/var/lib/umlaan/{settings.lab}",
        cache_dir=settings.cache_dir,
    )


def _node(row: HostData, settings: Settings, hosts: tuple[LabHost, ...], locate: Locate) -> Node:
    short = row.name.removeprefix("@uml/")
    # isdigit() would take any script's digits, and int() not all of those.
    named = _UML_NAME.fullmatch(short)
    if named is None:
        raise DataError(
            f"inventory.py: {_shown(row.name)}: a UML node is named @uml/nodeN, N its number "
            "(0 to 31)"
        )
    carrier = settings.lab_host or hosts[0].name
    host = next((h for h in hosts if h.name == carrier), None)
    if host is None:
        known = ", ".join(h.name for h in hosts)
        place = locate(row.name, "lab_host")
        raise DataError(f"{place}: lab_host: {carrier!r} is no lab host; allowed: {known}")
    try:
        node = Node(
            number=int(named[1]),
            host=carrier,
            network=settings.network,
            kernel=settings.kernel,
            root=settings.root,
            settings=settings.node,
            state_dir=host.state_dir,
        )
        _ = node.address
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(f"inventory.py: {row.name}: number: {fault['msg']}") from None
    except ValueError as error:
        raise DataError(f"{locate(row.name, 'network')}: {row.name}: {error}") from None
    return node


def _check_clashes(lab: Lab, locate: Locate) -> None:
    """No two nodes share a number, an address or a root, and none is the bridge's own."""
    seen: dict[str, str] = {}

    def claim(what: str, owner: str, key: str, host: str) -> None:
        if what in seen:
            raise DataError(f"{locate(host, key)}: {key}: {what} of {owner} is {seen[what]}'s too")
        seen[what] = owner

    for host in lab.hosts:
        claim(f"address {host.network.address.ip}", host.network.bridge, "network", host.name)
        if host.number is not None:
            address = host.network.node_address(host.number)
            claim(f"number {host.number}", host.label, "number", host.name)
            claim(f"address {address}", host.label, "network", host.name)
    for node in lab.nodes:
        name = f"@uml/{node.name}"
        claim(f"number {node.number}", node.name, "number", name)
        claim(f"address {node.address}", node.name, "node.address", name)
        claim(f"root {node.host} {node.root_path}", node.name, "root", name)
        if node.address not in node.network.address.network:
            raise DataError(
                f"{locate(name, 'node')}: node.address: {node.address} is outside "
                f"{node.network.address.network}"
            )
        for disk in node.settings.disks:
            claim(f"disk {node.host} {disk}", node.name, "node.disks", name)
