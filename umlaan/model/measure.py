"""What is measured, how often, and with which programs of the user's DVS tree. All data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from umlaan.model.base import Below, Command, EnvName, Model, OneLine, Size, known_names, size_bytes

TestName = Literal["message", "copy", "m3ftp-get", "m3ftp-put", "scp-get", "scp-put", "ping"]
ALL_TESTS: tuple[TestName, ...] = (
    "ping",
    "message",
    "copy",
    "m3ftp-get",
    "m3ftp-put",
    "scp-get",
    "scp-put",
)
_ENDS = {"dcid", "dest", "state", "run", "node", "name", "cluster", "debug"}
_ENDS |= {"address", "remote", "remote_name", "remote_address", "server_ep", "client_ep"}
_NAMES = _ENDS | {
    "server",
    "client",
    "size",
    "count",
    "children",
    "buffer",
    "remote_file",
    "local_file",
}


class MeasurePrograms(Model):
    """The procedure's section "REALIZAR PRUEBAS …" as templates.

    The defaults are the sample tree's, which are the procedure's plus two variables; the real DVS
    takes loop_nodes ((0, 1),) and a buffer command. Each program runs in its own directory under
    the tree (it finds its library by a relative path). Names: {dcid} {dest} {state} {run} {cluster}
    {debug}; {node} {name} {address} of this side, {remote} {remote_name} {remote_address} of the
    other; {server} {client}, node numbers; {size} {count} {children} {buffer} {server_ep}
    {client_ep} {remote_file} {local_file}.
    """

    loop_dir: Below = Field(
        "dvk-proxies/test", description="may hold {server} and {client}, node numbers"
    )
    message_server: Command = "./loop_r-s_server {children} {count}"
    message_client: Command = "./loop_sr_client {children} {count}"
    copy_server: Command = "./loop_copy_server {children} {count} {size}"
    copy_client: Command = "./loop_copy_client {children}"
    loop_nodes: tuple[tuple[int, int], ...] | None = Field(
        None, description="(server, client) pairs that loop programs are compiled for; None: any"
    )
    m3ftp_dir: Below = "dvk-proxies/test/m3ftp"
    m3ftp_server: Command = "./m3ftpd {dcid} {server_ep}"
    m3ftp_get: Command = "./m3ftp -g {dcid} {server_ep} {client_ep} {remote_file} {local_file}"
    m3ftp_put: Command = "./m3ftp -p {dcid} {server_ep} {client_ep} {remote_file} {local_file}"
    m3ftp_log: Below = Field("m3ftpd.log", description="where m3ftpd writes its figures")
    m3ftp_endpoints: tuple[int, int] = Field(
        (20, 21), description="of the side with the lower node number, and of the other"
    )
    # Sample tree and real DVS alike: a bound endpoint is a row of DCn/procs, the third column.
    ready: Command = Field(
        "awk -v e={server_ep} '$3 == e {{found = 1}} END {{exit !found}}' {state}/DC{dcid}/procs",
        description="exits 0 once the server has bound its endpoint",
    )
    buffer: Command | None = Field(
        None,
        description="prints the m3ftp buffer in force, bytes; None where {buffer} sets it and "
        "m3ftp prints what it took",
    )
    environment: dict[EnvName, OneLine] = Field(
        default_factory=lambda: {"DVS_RMTNODE": "{remote}", "M3FTP_BUFFER": "{buffer}"},
        description="left out where a name in it has no value for the test",
    )

    @field_validator("loop_nodes", mode="before")
    @classmethod
    def _one_pair(cls, value: object) -> object:
        """(0, 1) alone is one pair."""
        if isinstance(value, list | tuple) and all(isinstance(number, int) for number in value):
            return (tuple(value),)
        return value

    @field_validator("*")
    @classmethod
    def _known_names(cls, value: object, info: ValidationInfo) -> object:
        is_folder = info.field_name in ("loop_dir", "m3ftp_dir")
        return known_names(value, {"server", "client"} if is_folder else _NAMES)


class Measure(Model):
    """One run of umlaan measure: which tests, sizes, repeats, and how long each may take."""

    tests: tuple[TestName, ...] = Field(ALL_TESTS, description="in this order")
    ledger: OneLine = Field(
        "measurements.jsonl", description="where rows are added, on the machine that runs umlaan"
    )
    repeats: int = Field(5, ge=1, le=1000, description="values a row; 3 or more tell their spread")
    warmup: int = Field(1, ge=0, le=100, description="repeats before them, thrown away")
    message_count: int = Field(200, ge=1, le=1_000_000, description="exchanges a repeat")
    children: int = Field(1, ge=1, le=29, description="pairs of processes that exchange at once")
    copy_sizes: tuple[Size, ...] = Field(
        ("1K", "4K", "16K", "64K", "256K", "1M"), description="bytes a block"
    )
    copy_count: int = Field(100, ge=1, le=1_000_000, description="blocks a repeat, at most")
    copy_bytes: Size = Field("16M", description="bytes a repeat, at most; but 10 blocks at least")
    buffers: tuple[Size, ...] = Field(("64K", "1M"), description="bytes that m3ftp moves at once")
    file_size: Size = Field("69227508", description="the procedure's vmlinux, bytes")
    ping_count: int = Field(50, ge=1, le=10_000, description="pings a repeat")
    ping_size: int = Field(56, ge=16, le=65_507, description="bytes of payload")
    timeout: int = Field(600, ge=5, le=86_400, description="seconds that one repeat may take")
    start_timeout: int = Field(20, ge=1, le=600, description="seconds until a server is ready")
    stop_timeout: int = Field(
        20, ge=1, le=600, description="seconds until a server heeds SIGTERM; m3ftpd looks each 10"
    )
    programs: MeasurePrograms = MeasurePrograms()

    @model_validator(mode="after")
    def _sizes(self) -> Measure:
        for name in ("copy_sizes", "buffers"):
            sizes = [size_bytes(text) for text in getattr(self, name)]
            if any(size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
                raise ValueError(f"{name}: each one byte or more, and none twice")
        if len(set(self.tests)) < len(self.tests):
            raise ValueError("tests: none twice")
        if size_bytes(self.file_size) < 1:
            raise ValueError("file_size: one byte or more")
        return self
