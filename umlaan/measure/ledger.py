"""The ledger of measurements: one JSON object a line, only ever appended to.

docs/measurements.md describes every field. A reader takes newer fields of the same schema and
leaves them out; a newer schema it refuses. A line torn by a crash is no result: it is left out
and said.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from umlaan.measure import stats
from umlaan.model.base import Sha256
from umlaan.model.measure import TestName

SCHEMA_VERSION = 1

Unit = Literal["ms/exchange", "MB/s"]
UNITS: dict[str, Unit] = {
    "message": "ms/exchange",
    "ping": "ms/exchange",
    "copy": "MB/s",
    "m3ftp-get": "MB/s",
    "m3ftp-put": "MB/s",
    "scp-get": "MB/s",
    "scp-put": "MB/s",
}
Line = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\n\x00]*$")]
# Readers of other languages may round the last digits.
_TOLERANCE = 1e-6


class LedgerError(Exception):
    """A ledger that cannot be used: names file, line, and what is wrong with it."""


class _Record(BaseModel):
    """Part of a row: closed to change, open to fields that a newer umlaan wrote."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Kernel(_Record):
    """The kernel that ran a node while it was measured."""

    release: Line = Field(..., description="uname -r")
    sha256: Sha256 | None = Field(None, description="of the kernel's binary, where umlaan knows it")
    config_sha256: Sha256 | None = Field(None, description="of the .config it was built with")

    @property
    def label(self) -> str:
        """Release, and enough of the hash to tell two builds of it apart."""
        return f"{self.release} ({self.sha256[:8]})" if self.sha256 else self.release


class End(_Record):
    """One side of an exchange: which node, and what ran on it."""

    node: int = Field(..., ge=0, le=31, description="DVS node number")
    name: Line = Field(..., description="node0, node1, …")
    place: Literal["host", "uml"]
    kernel: Kernel
    dvs_sha256: Sha256 | None = Field(None, description="of the DVS tree that its programs are of")


class Way(_Record):
    """What lies between the two ends."""

    transport: Line = Field(..., description="of the UML nodes' network: tuntap, vector")
    mtu: int = Field(..., ge=68, le=65535, description="bytes, the smallest on the way")


class Parameters(_Record):
    """What was asked of the test. Only those that a test has are set; sizes are bytes."""

    size: int | None = Field(None, ge=1, description="bytes a copied block, or of a ping's payload")
    count: int | None = Field(None, ge=1, description="exchanges, blocks or pings a repeat")
    children: int | None = Field(None, ge=1, description="pairs of processes that exchange at once")
    buffer: int | None = Field(None, ge=1, description="m3ftp: bytes moved by one message")
    file: int | None = Field(None, ge=1, description="m3ftp, scp: bytes of the file")


class Figures(_Record):
    """The repeats' raw values and what follows from them, all in the row's unit."""

    values: tuple[float, ...] = Field(..., min_length=1)
    median: float
    min: float
    max: float
    iqr: float
    mad: float

    @classmethod
    def of(cls, values: list[float] | tuple[float, ...]) -> Figures:
        """Median and spread of these repeats. ValueError if one is not a positive number."""
        for value in values:
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"{value!r} is no figure: figures are positive numbers")
        return cls.model_construct(
            values=tuple(values),
            median=median(values),
            min=min(values),
            max=max(values),
            iqr=stats.iqr(values),
            mad=stats.mad(values),
        )

    @model_validator(mode="after")
    def _follows(self) -> Figures:
        right = Figures.of(self.values)
        for name in ("median", "min", "max", "iqr", "mad"):
            wanted, found = getattr(right, name), getattr(self, name)
            if abs(wanted - found) > _TOLERANCE * max(1.0, abs(wanted)):
                raise ValueError(f"{name}: {found} does not follow from the values ({wanted})")
        return self


class Load(_Record):
    """What else the lab host was doing."""

    host: Line
    cpus: int = Field(..., ge=1)
    before: float = Field(..., ge=0, description="1-minute load average when the row's run began")
    after: float = Field(..., ge=0, description="the same when it ended")


class Row(_Record):
    """One result: a test in one direction with one set of parameters, repeated."""

    schema_version: int = SCHEMA_VERSION
    time: AwareDatetime = Field(..., description="UTC, when its first repeat began")
    run: Line = Field(..., description="the same for all rows of one run of umlaan measure")
    lab: Line
    test: TestName
    tool: Line = Field(..., description="the programs that exchanged: server and client")
    tree: Line | None = Field(None, description="which DVS they are of: dvs.source of the data")
    server: End
    client: End
    parameters: Parameters
    way: Way
    load: Load
    warmup: int = Field(..., ge=0, description="repeats run before, and thrown away")
    repeats: int = Field(..., ge=1, description="repeats asked for")
    unit: Unit
    verdict: Literal["ok", "failed"]
    reason: str | None = Field(None, description="of a failed row: what happened, in one line")
    figures: Figures | None = None
    samples: tuple[float, ...] = Field(
        (), description="ping: every round trip, ms; for the distribution"
    )
    umlaan: Line = Field(..., description="version of umlaan that wrote the row")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Row:
        if UNITS[self.test] != self.unit:
            raise ValueError(f"unit: {self.test} is measured in {UNITS[self.test]}")
        if self.verdict == "failed" and (self.figures or not self.reason):
            raise ValueError("a failed row has a reason and no figures")
        if self.verdict == "ok":
            if self.figures is None or self.reason:
                raise ValueError("a row that is ok has figures and no reason")
            if len(self.figures.values) != self.repeats:
                raise ValueError("a row that is ok has a value for each repeat")
        return self

    @property
    def sample(self) -> bool:
        """True where the programs were those of umlaan's sample tree, which is no DVS."""
        return bool(self.tree and self.tree.rstrip("/").endswith("sample-dvs"))

    @property
    def kernel(self) -> str:
        """The kernels of its UML nodes, as history and comparison name them."""
        ends = [end for end in (self.server, self.client) if end.place == "uml"]
        labels = dict.fromkeys(end.kernel.label for end in ends or [self.server, self.client])
        return " / ".join(labels)


@dataclass
class Reading:
    """What a ledger holds: its rows in order, and what was left out, a line each."""

    path: str
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def append(path: str | Path, row: Row) -> None:
    """Add one row, whole and on the disk when this returns. OSError if it cannot be written.

    Writers wait for each other. A line that a crash left torn is closed first, never joined.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = not target.exists()
    data = row.model_dump_json(exclude_none=True).encode() + b"\n"
    descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if fresh:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | Path) -> Reading:
    """Every row of a ledger. LedgerError where it is missing, corrupt or of a newer schema."""
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise LedgerError(f"{name}: no such ledger; `umlaan measure` writes one") from None
    except OSError as error:
        raise LedgerError(f"{name}: {error.strerror}") from None
    reading = Reading(name)
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            reading.left_out.append(f"{name}:{number}: not a whole line (torn write), left out")
            continue
        reading.rows.append(_row(value, f"{name}:{number}"))
    return reading


def _row(value: Any, where: str) -> Row:
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(version, int):
        raise LedgerError(f"{where}: no row of a ledger: schema_version is missing")
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{where}: schema {version}; this umlaan reads up to {SCHEMA_VERSION}: update umlaan"
        )
    try:
        return Row.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        raise LedgerError(f"{where}: {f'{key}: ' if key else ''}{message}") from None


def utc(moment: datetime) -> str:
    """A moment as reports print it: 2026-11-22 17:45 UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def schema() -> dict[str, Any]:
    """JSON schema of a row, for other readers of the ledger."""
    return Row.model_json_schema()
