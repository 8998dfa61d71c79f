"""The user's DVS tree: how each variant of it is built, and how it is brought up, as data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from umlaan.model.base import AbsPath, EnvName, Model, OneLine, Sha256
from umlaan.model.toolchain import Toolchain

VariantName = Literal["ioctl", "ipc"]


class BuildStep(Model):
    """One make: ``make -C DIR VARIABLES TARGETS``. A variant's own variables come last."""

    dir: OneLine = Field(..., pattern=r"^[^/].*$")
    targets: tuple[OneLine, ...] = ()
    variables: dict[EnvName, OneLine] = Field(default_factory=dict)
    ioctl: dict[EnvName, OneLine] = Field(default_factory=dict)
    ipc: dict[EnvName, OneLine] = Field(default_factory=dict)

    def make_variables(self, variant: VariantName) -> dict[str, str]:
        """The variables of this step for one variant."""
        return {**self.variables, **getattr(self, variant)}


class Programs(Model):
    """Which programs bring the DVS up, and where its state is read. ``{…}`` names are filled in.

    Every program runs in its own directory (it finds its library by a relative path). Names:
    {node} {name} {dcid} {cluster} {debug} {remote} {remote_name} {dest} {state_dir}.
    """

    state: AbsPath = Field("/proc/dvs", description="where the nodes and proxies tables stand")
    init_dir: OneLine = "dvk-tests"
    init: OneLine = "./test_dvs_init -n {node} -D {debug} -C {cluster}"
    dc_dir: OneLine = "dvk-tests"
    dc: OneLine | None = "./test_dc_init -d {dcid}"
    dc_file: OneLine = Field("/dev/shm/DC{dcid}.sh", description="sets $DC0 to the init's pid")
    proxy_dir: OneLine = "dvk-proxies"
    proxy: OneLine | None = "./lz4tcp_proxy_bat -bBZ -n {remote_name} -i {remote}"
    add_node_dir: OneLine = "dvk-tests"
    add_node: OneLine | None = "./test_add_node {dcid} {remote}"
    unbind: OneLine = "./test_unbind {dcid} {endpoint}"
    rmtbind: OneLine = "./test_rmtbind {dcid} {endpoint} {remote} {endpoint_name}"
    environment: dict[EnvName, OneLine] = Field(default_factory=dict)


class Dvs(Model):
    """The tree, its build in two variants, its tarball and where it stands in a node's root."""

    source: OneLine = Field("examples/sample-dvs", description="directory, tarball or git checkout")
    sha256: Sha256 | None = None
    dest: AbsPath = "/usr/src/dvs"
    steps: tuple[BuildStep, ...] = ()
    variants: tuple[VariantName, ...] = ("ioctl", "ipc")
    bits: Literal[32, 64] = 64
    toolchain: Toolchain = "native"
    exclude: tuple[OneLine, ...] = Field((".git",), description="names left out of the copies")
    programs: Programs = Programs()
    cluster: OneLine = "DVS"
    debug: int = Field(0, ge=0, le=0xFFFFFFFF)
    local_tests: tuple[OneLine, ...] = Field((), description="host-local tests, run before dvk.ko")

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value
