"""Runs one case for real and makes a row of it: a figure, or a failure with its reason.

Order, as the procedure has it: remote endpoints are bound first, the server starts and is waited
for by a condition, the client runs to its end, the server is stopped, and only then endpoints are
unbound: unbinding one whose client is still blocked panics the real DVS's guest.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version

from umlaan.measure import loops, outputs, transfers
from umlaan.measure.bench import Bench, CaseFailed, Pair
from umlaan.measure.cases import Case
from umlaan.measure.ledger import UNITS, Figures, Load, Row, Way
from umlaan.measure.outputs import NotAFigure
from umlaan.measure.sides import SideError
from umlaan.measure.steps import clear

PING_INTERVAL_S = 0.02

Repeat = Callable[[], tuple[float, list[float]]]
Faults = (CaseFailed, NotAFigure, SideError)


def measure_case(bench: Bench, case: Case) -> Row:
    """Warm up, repeat, and judge; whatever goes wrong between the nodes is a failed row.

    SideError only where the lab host itself is out of reach.
    """
    began, before = datetime.now(UTC), bench.load()
    server, client = bench.peers[case.server.number], bench.peers[case.client.number]
    figures: Figures | None = None
    samples: list[float] = []
    reason: str | None = None
    try:
        with _test(bench, case) as repeat:
            values, samples = _repeats(case, repeat)
        figures = Figures.of(values)
    except (*Faults, ValueError) as error:
        reason = " ".join(str(error).split())[:500]
    transports = [t for t in dict.fromkeys((server.transport, client.transport)) if t]
    return Row(
        time=began,
        run=bench.run,
        lab=bench.lab,
        test=case.test,
        tool=_tool(bench, case),
        tree=bench.dvs.source,
        server=server.end,
        client=client.end,
        parameters=case.parameters,
        way=Way(transport=", ".join(transports) or "none", mtu=min(server.mtu, client.mtu)),
        load=Load(host=bench.host, cpus=bench.cpus, before=before, after=bench.load()),
        warmup=case.warmup,
        repeats=case.repeats,
        unit=UNITS[case.test],
        verdict="failed" if reason else "ok",
        reason=reason,
        figures=figures,
        samples=tuple(samples) if figures else (),
        umlaan=version("umlaan"),
    )


def _repeats(case: Case, repeat: Repeat) -> tuple[list[float], list[float]]:
    """Values and samples of all repeats; the first that is no figure ends it."""
    values: list[float] = []
    samples: list[float] = []
    for index in range(case.warmup + case.repeats):
        warm = index < case.warmup
        try:
            value, more = repeat()
        except Faults as error:
            number = index + 1 if warm else index - case.warmup + 1
            which = f"warm-up {number}" if warm else f"repeat {number} of {case.repeats}"
            raise CaseFailed(f"{which}: {error}", ended=getattr(error, "ended", True)) from None
        if not warm:
            values.append(value)
            samples.extend(more)
    return values, samples


def _tool(bench: Bench, case: Case) -> str:
    p = bench.measure.programs
    words = {
        "message": (p.message_server, p.message_client),
        "copy": (p.copy_server, p.copy_client),
        "m3ftp-get": (p.m3ftp_server, p.m3ftp_get),
        "m3ftp-put": (p.m3ftp_server, p.m3ftp_put),
    }.get(case.test, (case.test.partition("-")[0],))
    return ", ".join(word.split()[0].removeprefix("./") for word in words)


@contextmanager
def _test(bench: Bench, case: Case) -> Iterator[Repeat]:
    """One repeat as a function; what it needs is there before, and is gone afterwards."""
    pair = Pair.of(bench, case)
    if case.test == "ping":
        yield lambda: _ping(bench, case, pair)
    elif case.test in ("message", "copy"):
        clear(pair)
        loop = loops.message if case.test == "message" else loops.copy
        yield lambda: (loop(bench, case, pair), [])
    elif case.test.startswith("scp"):
        with transfers.files(bench, case, pair) as sent:
            yield lambda: (transfers.scp(bench, case, pair, sent), [])
    else:
        with (
            transfers.files(bench, case, pair) as sent,
            transfers.m3ftpd(bench, case, pair) as serving,
        ):
            yield lambda: (transfers.m3ftp(bench, case, pair, sent, serving), [])


def _ping(bench: Bench, case: Case, pair: Pair) -> tuple[float, list[float]]:
    client, p = pair.client, case.parameters
    count, size = p.count or 1, p.size or 56
    command = (
        f"LC_ALL=C ping -n -c {count} -i {PING_INTERVAL_S} -s {size} "
        f"{shlex.quote(pair.server.address)}"
    )
    done = client.side.run(command, min(bench.measure.timeout, 15 + count))
    if done.code == 127:
        raise CaseFailed(f"{client.name}: no ping there; install iputils-ping")
    if done.code not in (0, 1):
        raise CaseFailed(f"{client.name}: ping: {done.last_line}")
    found = outputs.ping(done.output, count)
    return found.average, list(found.samples)
