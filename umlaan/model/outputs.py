"""What the ``umlaan`` command prints as JSON. docs/schemas/ holds each as a published schema.

Fields are added, never renamed; a change that breaks readers raises ``version``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from umlaan.model.base import Model

NodeWord = Literal["absent", "down", "booting", "up", "unreachable", "failed"]


class KernelOutput(Model):
    """The kernel that runs, or would."""

    release: str | None = Field(None, description="of the running kernel, else of the built one")
    sha256: str | None = Field(None, description="of the running kernel, else of the built one")
    wanted_sha256: str | None = Field(None, description="of the one that is built for this node")
    path: str


class DvsOutput(Model):
    """A DVS tree: what was built, and whether what stands there is that."""

    sha256: str | None = Field(None, description="of the built variant's manifest")
    path: str
    state: Literal["as built", "differs", "missing", "not compared", "not built"]
    differing: tuple[str, ...] = ()


class ProxyOutput(Model):
    """One side's view of one other node, from its nodes and proxies tables."""

    remote: int
    name: str
    node_flags: str | None = Field(None, description="E is a remote node that is connected")
    proxy_flags: int | None = Field(None, description="7 is a proxy joined in both directions")
    sent: int | None = None
    received: int | None = None
    joined: bool


class NodeOutput(Model):
    """One UML node."""

    name: str
    number: int
    lab_host: str
    state: NodeWord
    drift: tuple[str, ...] = Field((), description="why it is not as declared")
    address: str
    mac: str
    tap: str
    transport: Literal["tuntap", "vector"] | None = None
    kernel: KernelOutput
    root: str
    root_kind: Literal["made", "device"]
    root_exists: bool
    dvs: DvsOutput | None = None
    pid: int | None = Field(None, description="on the lab host")
    dc: int | None = Field(None, description="pid of the DC's init whose namespace holds it")
    uptime_s: float | None = None
    memory_bytes: int | None = Field(None, description="really used on the lab host")
    console: bool = Field(False, description="a holder keeps its console, so one can attach")
    guest: Literal["answered", "late", "failed", "not asked"] = Field(
        "not asked", description="whether the guest itself was heard for this report"
    )
    proxies: tuple[ProxyOutput, ...] = ()


class LinkOutput(Model):
    """One network interface of the lab on a lab host."""

    name: str
    kind: Literal["bridge", "tap", "node0", "other"]
    up: bool
    carrier: bool
    addresses: tuple[str, ...] = ()
    master: str | None = None
    node: str | None = Field(None, description="whose tap it is")


class HostOutput(Model):
    """One lab host."""

    name: str
    label: str
    namespace: str | None = Field(None, description="of the network; null is the host's own")
    drift: tuple[str, ...] = ()
    links: tuple[LinkOutput, ...] = ()
    dvs: DvsOutput | None = None
    proxies: tuple[ProxyOutput, ...] = ()


class ChangeOutput(Model):
    """One change that a run would make, or made."""

    host: str
    operation: str
    reason: str


class StatusOutput(Model):
    """``umlaan status --json``."""

    version: Literal[1] = 1
    lab: str
    verdict: Literal["converged", "drifted"]
    compared: Literal["live", "everything"] = Field(
        ..., description="live: launch, network, guest; everything: all that umlaan up looks at"
    )
    at: str = Field(..., description="when, ISO 8601 with zone")
    hosts: tuple[HostOutput, ...]
    nodes: tuple[NodeOutput, ...]
    changes: tuple[ChangeOutput, ...] = Field((), description="with --drift: what up would do")

    def drift(self) -> list[str]:
        """Every line of drift, hosts first; what a plan of everything found before it."""
        lines = [line for host in self.hosts for line in host.drift]
        lines += [line for node in self.nodes for line in node.drift]
        return list(dict.fromkeys([*(change.reason for change in self.changes), *lines]))


class PlanOutput(Model):
    """``umlaan plan --json``, and what a run writes into the file UMLAAN_PLAN_FILE names."""

    version: Literal[1] = 1
    lab: str
    dry: bool
    verdict: Literal["up", "down", "drifted", "failed", "absent"]
    operations: int
    changed: int
    failed: int
    seconds: float
    changes: tuple[ChangeOutput, ...] = ()
    messages: tuple[ChangeOutput, ...] = Field(
        (), description="said by operations that change nothing, above all why one cannot run"
    )


class DoctorLine(Model):
    """One thing that a machine lacks, or that its user should know, with its remedy in it."""

    host: str
    kind: Literal["lack", "note"] = Field(..., description="a lack keeps the lab from coming up")
    text: str


class DoctorOutput(Model):
    """``umlaan doctor --json``."""

    version: Literal[1] = 1
    lab: str
    verdict: Literal["ready", "lacking"]
    machines: dict[str, dict[str, str]] = Field(..., description="what each machine is, in words")
    lines: tuple[DoctorLine, ...] = ()


class SnapshotOutput(Model):
    """One snapshot of a node's root."""

    node: str
    name: str
    at: str = Field(..., description="when it was taken, ISO 8601 with zone")
    state: Literal["stopped", "frozen", "paused"] = Field(
        ..., description="how the root was held still"
    )
    size_bytes: int = Field(..., description="what the file system spans")
    disk_bytes: int = Field(..., description="what it takes on the disk, shared blocks included")
    how: Literal["reflink", "copy", "kept"] = Field(
        ..., description="kept: it was the root until another snapshot was restored"
    )


class SnapshotsOutput(Model):
    """``umlaan snapshot --json``."""

    version: Literal[1] = 1
    lab: str
    snapshots: tuple[SnapshotOutput, ...]


OUTPUTS: dict[str, type[Model]] = {
    "status": StatusOutput,
    "plan": PlanOutput,
    "doctor": DoctorOutput,
    "snapshot": SnapshotsOutput,
}
