"""The message loop and the block copy: a server and a client a repeat."""

from __future__ import annotations

from umlaan.measure import outputs
from umlaan.measure.bench import Bench, CaseFailed, Pair
from umlaan.measure.cases import Case
from umlaan.measure.sides import Done, SideError
from umlaan.measure.steps import (
    explained,
    judge,
    possible,
    run_client,
    servers_words,
    start_server,
    unbind,
)


def message(bench: Bench, case: Case, pair: Pair) -> float:
    """ms an exchange of one repeat, from loop_r-s_server. CaseFailed, NotAFigure."""
    programs, p = bench.measure.programs, case.parameters
    server, client = _loop(bench, pair, programs.message_server, programs.message_client)
    with explained((pair.server, server), (pair.client, client)):
        found = outputs.message_loop(server.output, (p.count or 1) * (p.children or 1))
        possible(found.seconds, client)
    return found.ms


def copy(bench: Bench, case: Case, pair: Pair) -> float:
    """MB/s of one repeat, from loop_copy_server. CaseFailed, NotAFigure."""
    programs, p = bench.measure.programs, case.parameters
    server, client = _loop(bench, pair, programs.copy_server, programs.copy_client)
    with explained((pair.server, server), (pair.client, client)):
        found = outputs.copy_loop(server.output, p.size or 1, p.count or 1, p.children or 1)
        possible(found.seconds, client)
    return found.mb_s


def _loop(bench: Bench, pair: Pair, serve: str, ask: str) -> tuple[Done, Done]:
    """How server and client ended. The programs bind for themselves."""
    folder, server = bench.measure.programs.loop_dir, pair.server
    handle = start_server(bench, pair, folder, serve, bench.measure.timeout + 60)
    # Once its client has all its answers, a server has only its own end left to do.
    patience = 0
    try:
        done = run_client(bench, pair.client, pair.at_client.program(folder, ask))
        judge(pair.client, "client", done)
        patience = bench.measure.start_timeout
    except (CaseFailed, SideError) as error:
        fault: CaseFailed | SideError | None = error
    else:
        fault = None
    finally:
        result = server.side.finish(handle, patience, bench.measure.stop_timeout)
    try:
        if fault is None:
            judge(server, "server", result)
            return result, done
    except CaseFailed as error:
        fault = error
    words = servers_words(server, result, str(fault))
    ended = getattr(fault, "ended", True)
    left = unbind(pair) if ended else "; its client may still run: endpoints are left bound"
    raise CaseFailed(f"{fault}{words}{left}", ended=ended)
