"""The steps that every test of the DVS's programs takes: bind, wait, run, judge, unbind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from umlaan.measure import outputs
from umlaan.measure.bench import Bench, CaseFailed, Pair, Peer
from umlaan.measure.outputs import NotAFigure
from umlaan.measure.programs import Commands
from umlaan.measure.sides import TAIL_BYTES, Done, Handle, SideError

# How much longer than the client ran a program may say that it measured: clocks differ a little.
CLOCK_SLACK_S = 0.5


def run_client(bench: Bench, client: Peer, command: str) -> Done:
    """Run a client to its end; its output stays on its side until then."""
    script = (
        'o=$(mktemp "${TMPDIR:-/tmp}/umlaan-measure.XXXXXX") || exit 1; '
        f"trap 'tail -c {TAIL_BYTES} $o; rm -f $o' EXIT; trap 'exit 124' TERM; "
        f"( {command} ) >$o 2>&1"
    )
    return client.side.run(script, bench.measure.timeout)


def judge(peer: Peer, role: str, done: Done) -> None:
    """CaseFailed unless the program ended by itself, with 0.

    Words of an error alone are no failure: the real DVS's programs print ERROR for what they try
    again (a source that died, a receive that timed out). Figures and hashes decide.
    """
    if done.timed_out:
        raise CaseFailed(
            f"{peer.name}: the {role} did not end in {done.seconds:.0f} s", ended=done.ended
        )
    if done.code:
        words = outputs.complaint(done.output) or done.last_line
        raise CaseFailed(f"{peer.name}: the {role} failed, exit code {done.code}: {words}")


@contextmanager
def explained(*said: tuple[Peer, Done]) -> Iterator[None]:
    """What is no figure, with what the programs complained of, if they did."""
    try:
        yield
    # A number of thousands of digits is a ValueError of Python's own.
    except (CaseFailed, NotAFigure, ValueError) as error:
        words = [
            f"{peer.name} said: {line}"
            for peer, done in said
            if (line := outputs.complaint(done.output))
        ]
        raise CaseFailed(
            "; ".join([str(error), *words]), ended=getattr(error, "ended", True)
        ) from None


def servers_words(server: Peer, done: Done, reason: str) -> str:
    """What the server itself said about a failure, if it adds something."""
    died = not done.timed_out and done.code != 0
    words = outputs.complaint(done.output) or (done.last_line if died else None)
    if not words or words in reason:
        return ""
    how = f" (exit code {done.code})" if died else ""
    return f"; {server.name}'s server{how}: {words}"


def possible(seconds: float, done: Done) -> None:
    """NotAFigure where a program measured more time than its client ran."""
    if seconds > done.seconds + CLOCK_SLACK_S:
        raise NotAFigure(
            f"the program says {seconds:.2f} s, but its client ran {done.seconds:.2f} s: "
            "a clock is wrong"
        )


def clear(pair: Pair) -> None:
    """Free what an aborted test left bound. CaseFailed if a program still holds the server's."""
    unbind(pair)
    if pair.server.side.run(pair.at_server.ready(), 30).code == 0:
        raise CaseFailed(
            f"{pair.server.name}: endpoint {pair.at_server.endpoints.server} is bound by a "
            "program that still runs; end it first"
        )


def start_server(bench: Bench, pair: Pair, folder: str, template: str, lifetime: float) -> Handle:
    """A server that has bound its endpoint. CaseFailed if it ends before, or takes too long."""
    server, limit = pair.server, bench.measure.start_timeout
    handle = server.side.start(
        pair.at_server.program(folder, template), lifetime, pair.at_server.ready(), limit
    )
    if handle.waited == 0:
        return handle
    done = server.side.finish(handle, 0, bench.measure.stop_timeout)
    if handle.waited == 3:
        words = outputs.complaint(done.output) or done.last_line
        raise CaseFailed(f"{server.name}: the server ended, exit code {done.code}: {words}")
    endpoint = pair.at_server.endpoints.server
    raise CaseFailed(f"{server.name}: the server did not bind endpoint {endpoint} in {limit} s")


def bind(peer: Peer, commands: Commands) -> None:
    """test_rmtbind; its exit code says nothing (upstream's main is void), its words do."""
    done = peer.side.run(commands.bind(), 30)
    complaint = outputs.complaint(done.output)
    if complaint or done.code in (126, 127) or done.timed_out:
        raise CaseFailed(f"{peer.name}: test_rmtbind: {complaint or done.last_line}")


def unbind(pair: Pair) -> str:
    """Free every endpoint of the case on both sides; in words, what could not be done.

    Only once the client has ended. An endpoint that is not bound is refused, which is as good.
    """
    faults = ""
    ends = pair.at_server.endpoints
    for peer, commands in ((pair.server, pair.at_server), (pair.client, pair.at_client)):
        numbers = (*ends.server_all, *ends.client_all)
        script = "; ".join(f"( {commands.unbind(number)} )" for number in numbers)
        try:
            peer.side.run(f"{script}; true", 60)
        except SideError as error:
            faults += f"; endpoints left bound: {error}"
    return faults
