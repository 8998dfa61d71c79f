"""The user's DVS tree: how each variant of it is built, and how it is brought up, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from umlaan.model.base import (
    Below,
    Command,
    EnvName,
    MakeValue,
    Model,
    OneLine,
    OwnPath,
    OwnTemplate,
    Sha256,
    Target,
    known_names,
)
from umlaan.model.toolchain import Toolchain

VariantName = Literal["ioctl", "ipc"]
GUEST_RUN = "/run/umlaan"
_NAMES = {"node", "name", "dcid", "cluster", "debug", "remote", "remote_name", "remote_address"}
_NAMES |= {"address", "dest", "state", "run", "endpoint", "endpoint_name", "base_port"}
_SIDE = {"node", "name", "address", "cluster", "debug", "dest", "state", "run", "base_port"}
_REMOTE = {"remote", "remote_name", "remote_address"}
# What has a value where the key is filled in; all of them in the others.
_ONLY = {
    **dict.fromkeys(("init", "guest_init", "init_end"), _SIDE),
    **dict.fromkeys(("dc", "guest_dc"), _SIDE | {"dcid", "config"}),
    "dc_end": _SIDE | {"dcid"},
    "proxy": _SIDE | _REMOTE,
    "add_node": _SIDE | _REMOTE | {"dcid"},
    "unbind": _SIDE | {"dcid", "endpoint"},
    "dc_file": {"dcid", "dest", "run"},
    "host_state": {"dest", "run"},
    **dict.fromkeys(("init_dir", "dc_dir", "proxy_dir", "add_node_dir"), set()),
}
ConfigName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
ConfigValue = Annotated[OneLine, StringConstraints(pattern=r'^[^"\\]*$')]
# {cluster} stands in commands as it is.
Cluster = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]


def host_run(state_dir: str) -> str:
    """The folder of a lab on its lab host that lasts no longer than the lab is up."""
    return f"{state_dir}/run"


def host_tree(state_dir: str) -> str:
    """The ioctl copy of the DVS on a lab host, whose programs run there."""
    return f"{state_dir}/dvs/ioctl"


def _host_places(state_dir: str) -> dict[str, str]:
    """What a lab host's paths may name."""
    return {"dest": host_tree(state_dir), "run": host_run(state_dir)}


class BuildStep(Model):
    """One make: ``make -C DIR VARIABLES TARGETS``. A variant's own variables come last.

    Or a shell command in DIR, with the variables in its environment: what make has no rule for.
    """

    dir: Below
    targets: tuple[Target, ...] = ()
    variables: dict[EnvName, MakeValue] = Field(default_factory=dict)
    ioctl: dict[EnvName, MakeValue] = Field(default_factory=dict)
    ipc: dict[EnvName, MakeValue] = Field(default_factory=dict)
    command: Command | None = Field(None, description="instead of make; no targets then")

    @model_validator(mode="after")
    def _make_or_command(self) -> BuildStep:
        if self.command is not None and self.targets:
            raise ValueError("give command or targets, not both")
        return self

    def make_variables(self, variant: VariantName) -> dict[str, str]:
        """The variables of this step for one variant."""
        return {**self.variables, **getattr(self, variant)}


class Programs(Model):
    """Which programs bring the DVS up, and where its state is read. ``{…}`` names are filled in.

    Every program runs in its own directory (it finds its library by a relative path). Names:
    {node} {name} {address} {dcid} {cluster} {debug} {remote} {remote_name} {remote_address} {dest}
    {state} {run} {endpoint} {endpoint_name} {base_port}, in dc also {config}. {run} is a folder of
    the lab's own on each side, gone with the lab: STATE_DIR/run on a lab host, /run/umlaan in a
    guest. {address} is the side's own in the lab.
    """

    state: OwnPath = Field("/proc/dvs", description="where the nodes and proxies tables stand")
    host_state: OwnTemplate | None = Field(None, description="the same on a lab host, if elsewhere")
    guest_prepare: Command | None = Field(
        "dmesg -n 1", description="in a guest before all: debug output floods its console"
    )
    init_dir: Below = "dvk-tests"
    init: Command = "./test_dvs_init -n {node} -D {debug} -C {cluster}"
    guest_init: Command | None = Field(None, description="in a guest, where it differs")
    init_end: Command | None = Field(None, description="undoes init; None: only a reboot does")
    dc_dir: Below = "dvk-tests"
    dc: Command | None = "./test_dc_init -d {dcid}"
    guest_dc: Command | None = Field(
        None, description="in a guest, where it differs: nothing there needs the DC's init"
    )
    dc_config: dict[ConfigName, int | ConfigValue] = Field(
        default_factory=dict,
        description="entries of the DC's configuration file, {config} in dc: nr_procs, memory, …",
    )
    dc_file: OwnTemplate | None = Field(
        "/dev/shm/DC{dcid}.sh", description="sets $DC0 to the init's pid; None: dc makes no init"
    )
    dc_end: Command | None = Field(None, description="ends a DC; None: its init gets SIGTERM")
    proxy_dir: Below = "dvk-proxies"
    proxy: Command | None = "./lz4tcp_proxy_bat -bBZ -n {remote_name} -i {remote}"
    proxy_restart: Literal["proxy", "node", "lab"] = Field(
        "proxy",
        description="what a new start of a proxy takes: itself, its whole node, or all nodes of "
        "the lab together",
    )
    add_node_dir: Below = "dvk-tests"
    add_node: Command | None = "./test_add_node {dcid} {remote}"
    unbind: Command = "./test_unbind {dcid} {endpoint}"
    rmtbind: Command = "./test_rmtbind {dcid} {endpoint} {remote} {endpoint_name}"
    environment: dict[EnvName, OneLine] = Field(default_factory=dict)
    beats: bool = Field(False, description="counters of an idle pair move by themselves")
    start_timeout: int = Field(
        15, ge=1, le=600, description="seconds without progress of DVS, DC, proxies"
    )
    connect_timeout: int = Field(
        60, ge=1, le=3600, description="seconds without progress until a pair is joined"
    )

    @field_validator("*")
    @classmethod
    def _known_names(cls, value: object, info: ValidationInfo) -> object:
        return known_names(value, _ONLY.get(info.field_name or "", _NAMES))

    @model_validator(mode="after")
    def _config_is_given(self) -> Programs:
        if self.dc_config and "{config}" not in (self.dc or ""):
            raise ValueError("dc_config: dc does not take it; for example ./dc_init {config}")
        return self

    def state_on_host(self, state_dir: str) -> str:
        """Where the tables stand on a lab host."""
        return (self.host_state or self.state).format(**_host_places(state_dir))

    def dc_file_on_host(self, state_dir: str, dcid: int) -> str | None:
        """The DC file on a lab host; None where making a DC leaves no init."""
        if self.dc_file is None:
            return None
        return self.dc_file.format(**_host_places(state_dir), dcid=dcid)


class Dvs(Model):
    """The tree, its build in two variants, its tarball and where it stands in a node's root."""

    source: OneLine = Field("examples/sample-dvs", description="directory, tarball or git checkout")
    sha256: Sha256 | None = None
    dest: OwnPath = "/usr/src/dvs"
    steps: tuple[BuildStep, ...] = ()
    variants: tuple[VariantName, ...] = ("ioctl", "ipc")
    bits: Literal[32, 64] = 64
    toolchain: Toolchain = "native"
    exclude: tuple[OneLine, ...] = Field((".git",), description="names left out of the copies")
    programs: Programs = Programs()
    cluster: Cluster = "DVS"
    debug: int = Field(0, ge=0, le=0xFFFFFFFF)

    @field_validator("dest")
    @classmethod
    def _below_a_folder(cls, value: str) -> str:
        if value.count("/") < 2:
            raise ValueError("must be a folder below another one, for example /usr/src/dvs")
        return value

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value
