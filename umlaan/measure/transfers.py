"""File transfers: m3ftp through the DVS, scp beside it, contents compared by hash."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from umlaan.measure import outputs
from umlaan.measure.bench import Bench, CaseFailed, Pair, Peer
from umlaan.measure.cases import Case
from umlaan.measure.sides import Handle, SideError
from umlaan.measure.steps import (
    bind,
    clear,
    explained,
    judge,
    possible,
    run_client,
    servers_words,
    start_server,
    unbind,
)

SPARE_BYTES = 8 << 20
# A guest knows no other guest's host key; what is sent is random bytes, compared by hash.
AMONG_GUESTS = (
    *("-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
)


@dataclass(frozen=True)
class Files:
    """The file that is sent and the name it arrives under, each in m3ftp's folder of its side."""

    source: str
    arrived: str
    digest: str
    size: int
    taker: Peer
    path: str

    def remove_arrived(self) -> None:
        """So that what arrived before can never pass for what arrives now."""
        self.taker.side.run(f"rm -f -- {shlex.quote(self.path)}", 60)

    def compare(self) -> None:
        """CaseFailed unless what arrived is what was sent."""
        if digest(self.taker, self.path, self.size) != self.digest:
            raise CaseFailed(f"{self.taker.name}: what arrived is not what was sent: hashes differ")


@contextmanager
def files(bench: Bench, case: Case, pair: Pair) -> Iterator[Files]:
    """The file of the case on the giving side, made once a run; what arrives is removed."""
    giver, taker = pair.server, pair.client
    if case.test.endswith("put"):
        giver, taker = taker, giver
    size = case.parameters.file or 1
    where, there = (f"{p.tree.dest}/{bench.measure.programs.m3ftp_dir}" for p in (giver, taker))
    source, arrived = f"umlaan-{size}.source", f"umlaan-{size}.arrived"
    key = (giver.end.node, size)
    if key not in bench.sources:
        _room(giver, where, size)
        # Random bytes: a proxy that compresses shall not shine by what was sent.
        made = giver.side.run(
            f"cd {shlex.quote(where)} && head -c {size} /dev/urandom >{source} && sync {source}",
            bench.measure.timeout,
        )
        if made.code:
            raise CaseFailed(f"{giver.name}: {where}/{source}: {made.last_line}")
        bench.sources[key] = digest(giver, f"{where}/{source}", size)
    sent = Files(source, arrived, bench.sources[key], size, taker, f"{there}/{arrived}")
    sent.remove_arrived()
    _room(taker, there, size)
    try:
        yield sent
    finally:
        sent.remove_arrived()


def _room(peer: Peer, path: str, needed: int) -> None:
    done = peer.side.run(f"df -Pk {shlex.quote(path)} | awk 'NR == 2 {{print $4}}'", 30)
    if not re.fullmatch(r"\s*[0-9]{1,15}\s*", done.output):
        raise CaseFailed(f"{peer.name}: {path}: {done.last_line}")
    free = int(done.output) * 1024
    if free < needed + SPARE_BYTES:
        raise CaseFailed(
            f"{peer.name}: {path}: {free / 1e6:.0f} MB free, {(needed + SPARE_BYTES) / 1e6:.0f} MB "
            "needed; measure.file_size makes it less"
        )


def digest(peer: Peer, path: str, size: int) -> str:
    """SHA-256 of a file on a side. CaseFailed where it is missing or of another size."""
    quoted = shlex.quote(path)
    done = peer.side.run(f"wc -c <{quoted} && sha256sum {quoted}", 300)
    words = done.output.split()
    if done.code or len(words) < 2 or not re.fullmatch("[0-9]{1,18}", words[0]):
        raise CaseFailed(f"{peer.name}: nothing arrived: {done.last_line}")
    if int(words[0]) != size:
        raise CaseFailed(f"{peer.name}: short: {words[0]} of {size} bytes arrived")
    return words[1]


@contextmanager
def m3ftpd(bench: Bench, case: Case, pair: Pair) -> Iterator[Handle]:
    """Endpoints bound on both sides, then the server; afterwards the other way round."""
    programs, server = bench.measure.programs, pair.server
    clear(pair)
    ended = True
    try:
        bind(server, pair.at_server)
        bind(pair.client, pair.at_client)
        lifetime = (bench.measure.timeout + 60) * (case.warmup + case.repeats)
        handle = start_server(bench, pair, programs.m3ftp_dir, programs.m3ftp_server, lifetime)
        fault: CaseFailed | None = None
        try:
            _check_buffer(bench, case, pair)
            yield handle
        except CaseFailed as error:
            fault, ended = error, error.ended
        finally:
            done = server.side.finish(handle, 0, bench.measure.stop_timeout)
        if fault:
            raise CaseFailed(f"{fault}{servers_words(server, done, str(fault))}", ended=ended)
    finally:
        if ended:
            unbind(pair)


def _check_buffer(bench: Bench, case: Case, pair: Pair) -> None:
    template = bench.measure.programs.buffer
    if template is None:
        return
    for peer, commands in ((pair.server, pair.at_server), (pair.client, pair.at_client)):
        done = peer.side.run(template.format(**commands.names()), 30)
        if done.output.strip() != str(case.parameters.buffer):
            raise CaseFailed(
                f"{peer.name}: a buffer of {case.parameters.buffer} bytes was asked for, "
                f"{done.last_line} is in force"
            )


def m3ftp(bench: Bench, case: Case, pair: Pair, sent: Files, serving: Handle) -> float:
    """MB/s of one get or put, from m3ftpd's log. CaseFailed, NotAFigure."""
    programs, server = bench.measure.programs, pair.server
    get = case.test == "m3ftp-get"
    log = shlex.quote(f"{pair.at_server.folder(programs.m3ftp_dir)}/{programs.m3ftp_log}")
    sent.remove_arrived()
    counted = server.side.run(f"cat {log} 2>/dev/null | wc -c", 30)
    if not re.fullmatch(r"\s*[0-9]{1,15}\s*", counted.output):
        raise CaseFailed(f"{server.name}: {log}: {counted.last_line}")
    before = int(counted.output)
    command = pair.at_client.program(
        programs.m3ftp_dir,
        programs.m3ftp_get if get else programs.m3ftp_put,
        remote_file=sent.source if get else sent.arrived,
        local_file=sent.arrived if get else sent.source,
    )
    done = run_client(bench, pair.client, command)
    judge(pair.client, "client", done)
    with explained((pair.client, done)):
        took = outputs.m3ftp_buffer(done.output)
        if programs.buffer is None and took != case.parameters.buffer:
            raise CaseFailed(
                f"{pair.client.name}: m3ftp took a buffer of {took or 'unknown size'}, "
                f"not of {case.parameters.buffer}; see measure.programs.buffer"
            )
        # It answers its client first, and writes down its figures then.
        grown = f"[ $(cat {log} 2>/dev/null | wc -c) -gt {before} ]"
        read = server.side.wait_until(
            serving, grown, bench.measure.start_timeout, f"tail -c +{before + 1} {log}"
        )
        if read.code:
            what = "died" if read.code == 3 else "wrote no figures"
            raise CaseFailed(f"{server.name}: m3ftpd {what}")
        transfer = outputs.m3ftpd_log(read.output, sent.size)
        possible(transfer.seconds, done)
        sent.compare()
    return transfer.mb_s


def scp(bench: Bench, case: Case, pair: Pair, sent: Files) -> float:
    """MB/s of the same file by scp, the reference. CaseFailed, NotAFigure."""
    server, client = pair.server, pair.client
    folder = bench.measure.programs.m3ftp_dir
    ours, theirs = f"{client.tree.dest}/{folder}", f"{server.target}:{server.tree.dest}/{folder}"
    if case.test == "scp-get":
        words = [f"{theirs}/{sent.source}", f"{ours}/{sent.arrived}"]
    else:
        words = [f"{ours}/{sent.source}", f"{theirs}/{sent.arrived}"]
    sent.remove_arrived()
    # -v comes before the lab's own log level, and a connection of its own before the shared one.
    own = ["-v", "-o", "ControlMaster=no", "-o", "ControlPath=none"]
    options = server.ssh if client.lent is None else AMONG_GUESTS
    sender = replace(client, side=client.lent or client.side)
    done = run_client(bench, sender, shlex.join(["scp", *own, *options, "--", *words]))
    if done.code == 127:
        raise CaseFailed(f"{client.name}: no scp there; install openssh-client")
    if done.timed_out or done.code:
        raise CaseFailed(f"{client.name}: scp failed, exit code {done.code}: {done.last_line}")
    transfer = outputs.scp(done.output, sent.size)
    possible(transfer.seconds, done)
    sent.compare()
    return transfer.mb_s


def clean(bench: Bench) -> None:
    """Remove the files that the run made on its sides."""
    for node, size in bench.sources:
        peer = bench.peers[node]
        path = f"{peer.tree.dest}/{bench.measure.programs.m3ftp_dir}/umlaan-{size}.source"
        try:
            peer.side.run(f"rm -f -- {shlex.quote(path)}", 60)
        except SideError as error:
            bench.say(f"{peer.name}: {path} is left there: {error}")
    bench.sources.clear()
