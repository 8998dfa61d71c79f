"""Parsers of what the measured programs print. What cannot be a figure raises NotAFigure.

The shapes are those of the procedure's section "REALIZAR PRUEBAS …" and of the programs'
sources: t_total has two decimals, so the figures come from the lines with six, and t_total only
has to agree with them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MB = 1_000_000
_NUMBER = r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|-?inf|-?nan"
_TIMES = re.compile(
    rf"t_start=\s*(?P<start>{_NUMBER})\s+t_stop=\s*(?P<stop>{_NUMBER})\s+"
    rf"t_total=\s*(?P<total>{_NUMBER})"
)
_PAIR = re.compile(rf"Time for a pair of SENDREC/RECEIVE-SEND=\s*(?P<ms>{_NUMBER})\s*\[ms\]")
_TRANSFERS = re.compile(r"Total msg transfers = (?P<count>\d+)")
_COPIES = re.compile(
    rf"transfer size=(?P<size>\d+) #transfers=(?P<count>\d+) loopbysec=(?P<rate>{_NUMBER})"
)
_BYTES = re.compile(r"total_bytes = (?P<bytes>-?\d+)")
_THROUGHPUT = re.compile(rf"Throug?hput = (?P<rate>{_NUMBER}) \[bytes/s\]")
_ERROR = re.compile(r"^.*(?:\bERROR:? |\berror=-?[1-9]).*$", re.MULTILINE)
# EDVSSRCDIED of a receive from any: a client of before has ended; it is tried again.
_RETRIED = re.compile(r"dvk_receive_T:\d+: rcode=-108$")
_BUFFER = re.compile(r"^buffer = (?P<bytes>\d+)$", re.MULTILINE)
# t_total and each end are rounded to 0.01 s; the sum of three such roundings.
_ROUNDING_S = 0.016


class NotAFigure(Exception):
    """What a program printed is no measurement; the message says why, in one line."""


@dataclass(frozen=True)
class Exchange:
    """A message loop that ended: ms a pair of SENDREC and RECEIVE-SEND, and how many."""

    ms: float
    count: int
    seconds: float


@dataclass(frozen=True)
class Transfer:
    """Bytes that really went over, and how long that took."""

    bytes: int
    seconds: float

    @property
    def mb_s(self) -> float:
        """Throughput in MB/s of 1,000,000 bytes, as the procedure counts."""
        return self.bytes / self.seconds / MB


@dataclass(frozen=True)
class Pings:
    """Round trips in ms: the mean as ping sums it up, and each if it printed them."""

    sent: int
    received: int
    minimum: float
    average: float
    maximum: float
    deviation: float | None
    samples: tuple[float, ...]


def message_loop(text: str, count: int) -> Exchange:
    """loop_r-s_server's last lines; count is loops × children as asked for."""
    total = _total(text)
    done = int(_only(_TRANSFERS, text, "Total msg transfers")["count"])
    if done != count:
        raise NotAFigure(f"short: {done} of {count} messages")
    ms = _positive(_only(_PAIR, text, "Time for a pair")["ms"], "time for a pair")
    seconds = ms * done / 1000
    _agree(total, seconds)
    return Exchange(ms, done, seconds)


def copy_loop(text: str, size: int, count: int, children: int = 1) -> Transfer:
    """loop_copy_server's last lines: count blocks of size bytes, from each of children.

    The program's own throughput leaves the children out; here they count.
    """
    total = _total(text)
    found = _only(_COPIES, text, "transfer size")
    if int(found["size"]) != size or int(found["count"]) != count:
        raise NotAFigure(
            f"short: {found['count']} blocks of {found['size']} bytes, not {count} of {size}"
        )
    rate = _positive(found["rate"], "loopbysec")
    _positive(_only(_THROUGHPUT, text, "Throuhput")["rate"], "throughput")
    seconds = count / rate
    _agree(total, seconds)
    return Transfer(size * count * children, seconds)


def m3ftpd_log(text: str, size: int) -> Transfer:
    """What m3ftpd added to its log for one file of size bytes."""
    total = _total(text)
    done = int(_only(_BYTES, text, "total_bytes")["bytes"])
    if done != size:
        raise NotAFigure(f"short: {done} of {size} bytes")
    rate = _positive(_only(_THROUGHPUT, text, "Throuhput")["rate"], "throughput")
    seconds = done / rate
    _agree(total, seconds)
    return Transfer(done, seconds)


def m3ftp_buffer(text: str) -> int | None:
    """The buffer that m3ftp says it took, bytes; None where it does not say (the real DVS's)."""
    found = _BUFFER.search(text)
    return int(found["bytes"]) if found else None


_PING_COUNT = re.compile(r"(?P<sent>\d+) packets transmitted, (?P<got>\d+)(?: packets)? received")
_PING_RTT = re.compile(
    r"(?:rtt|round-trip) min/avg/max(?:/(?:mdev|stddev))? = "
    r"(?P<values>[\d.]+(?:/[\d.]+){2,3}) ms"
)
_PING_TIME = re.compile(r"(?:icmp_)?seq=\d+ .{0,80}?time=(?P<ms>[\d.]+) ms")


def ping(text: str, count: int) -> Pings:
    """ping's lines and summary, of iputils, busybox or inetutils. A lost packet is no figure."""
    counted = _only(_PING_COUNT, text, "packets transmitted")
    sent, got = int(counted["sent"]), int(counted["got"])
    if got < count or sent < count:
        raise NotAFigure(f"lost: {got} of {count} pings answered")
    if "(DUP!)" in text or got > sent:
        raise NotAFigure("duplicate answers: two machines share an address")
    values = [float(v) for v in _only(_PING_RTT, text, "rtt")["values"].split("/")]
    low, mean, high = (_positive(str(v), "round trip") for v in values[:3])
    if not low <= mean <= high:
        raise NotAFigure(f"round trips of {low}/{mean}/{high} ms contradict each other")
    samples = tuple(float(match["ms"]) for match in _PING_TIME.finditer(text))
    deviation = values[3] if len(values) > 3 else None
    return Pings(sent, got, low, mean, high, deviation, samples)


_SCP_MOVED = re.compile(
    rf"Transferred: sent (?P<sent>\d+), received (?P<received>\d+) bytes, "
    rf"in (?P<s>{_NUMBER}) seconds"
)
_SCP_RATE = re.compile(
    rf"Bytes per second: sent (?P<sent>{_NUMBER}), received (?P<received>{_NUMBER})"
)


def scp(text: str, size: int) -> Transfer:
    """``scp -v``'s "Transferred" and "Bytes per second", for a file of size bytes.

    The figure is the file's bytes over the session's time, as scp's own rate; what ssh adds to
    them on the wire is not counted.
    """
    moved = _only(_SCP_MOVED, text, "Transferred")
    rates = _only(_SCP_RATE, text, "Bytes per second")
    way = "received" if int(moved["received"]) > int(moved["sent"]) else "sent"
    wire = int(moved[way])
    if wire < size:
        raise NotAFigure(f"short: {wire} bytes {way} for a file of {size}")
    rate = _positive(rates[way], "bytes per second")
    seconds = wire / rate
    if abs(seconds - _positive(moved["s"], "seconds")) > max(0.1, 0.02 * seconds):
        raise NotAFigure(f"{moved['s']} s and {rates[way]} bytes/s contradict each other")
    return Transfer(size, seconds)


def complaint(text: str) -> str | None:
    """The first line in which a DVS program reports an error; their exit codes do not say it."""
    for found in _ERROR.finditer(text):
        if not _RETRIED.search(found.group(0)):
            return found.group(0).strip()[:200]
    return None


def _only(pattern: re.Pattern[str], text: str, what: str) -> re.Match[str]:
    found = list(pattern.finditer(text))
    if not found:
        raise NotAFigure(f"missing line: {what}")
    if len(found) > 1:
        raise NotAFigure(f"{len(found)} results where one was asked for: {what}")
    return found[0]


def _positive(text: str, what: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value <= 0:
        raise NotAFigure(f"{what}: {text} is no figure")
    return value


def _total(text: str) -> float:
    found = _only(_TIMES, text, "t_start")
    start, stop, total = (float(found[name]) for name in ("start", "stop", "total"))
    if not all(math.isfinite(value) for value in (start, stop, total)):
        raise NotAFigure(f"times are no numbers: {found.group(0)}")
    if total < 0 or stop < start:
        raise NotAFigure(f"negative time: t_total={found['total']}: a clock was set back")
    if abs(stop - start - total) > _ROUNDING_S:
        raise NotAFigure(f"times contradict each other: {found.group(0)}")
    return total


def _agree(total: float, seconds: float) -> None:
    if abs(total - seconds) > _ROUNDING_S:
        raise NotAFigure(f"t_total={total:.2f} s contradicts the {seconds:.4f} s of its figures")
