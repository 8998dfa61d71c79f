"""The runner for real: two network namespaces joined by a veth, the sample tree in both."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from tests.e2e.joined import bound, dvs_up, joined, measuring, rows, sh
from umlaan.agent import proc
from umlaan.measure import ledger

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: root only"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def network():
    with joined():
        yield


@pytest.fixture(scope="module")
def trees(network, tmp_path_factory):
    with dvs_up(tmp_path_factory.mktemp("dvs")) as found:
        yield found


@pytest.fixture
def bench(trees, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with measuring(trees, tmp_path) as made:
        yield made


def test_every_test_in_both_directions_is_a_figure(bench, tmp_path):
    tests = ("ping", "message", "copy", "m3ftp-get", "m3ftp-put")
    found = rows(bench, tests=tests)
    assert [row.reason for row in found if row.reason] == []
    assert len(found) == 2 * 6
    for row in found:
        ledger.append(tmp_path / "ledger.jsonl", row)
        assert len(row.figures.values) == 3
        assert row.figures.median < (100 if row.unit == "ms/exchange" else 100_000)
    assert ledger.read(tmp_path / "ledger.jsonl").rows == found
    assert [len(row.samples) for row in found if row.test == "ping"] == [15, 15]
    assert {(r.server.name, r.client.name) for r in found} == {
        ("node0", "node1"),
        ("node1", "node0"),
    }


def test_a_server_that_dies_before_its_client_is_a_failed_row(bench, trees):
    programs = bench.measure.programs.model_copy(
        update={"message_server": "./loop_r-s_server none"}
    )
    first, second = rows(bench, tests=("message",), programs=programs)
    for row in (first, second):
        assert row.verdict == "failed"
        assert row.figures is None
        assert f"{row.server.name}: the server ended, exit code 2: usage: ./loop" in row.reason


def test_a_peer_that_dies_during_the_loop_is_a_failed_row(bench):
    programs = bench.measure.programs.model_copy(
        update={
            "message_client": "./loop_sr_client {children} {count} & c=$!; sleep 0.5; "
            "kill -9 $c; wait $c"
        }
    )
    # Enough exchanges that the client is still at it when it is killed.
    first, _ = rows(bench, tests=("message",), programs=programs, message_count=1_000_000)
    assert first.verdict == "failed"
    assert "node1: the client failed, exit code 137" in first.reason
    assert "node0's server" in first.reason


def test_a_client_that_hangs_is_ended_and_said(bench):
    programs = bench.measure.programs.model_copy(update={"copy_client": "sleep 60"})
    first, _ = rows(
        bench, tests=("copy",), copy_sizes=("1K",), programs=programs, timeout=5, repeats=1
    )
    assert first.reason.startswith("warm-up 1: node1: the client did not end in 5 s")


def test_a_short_file_is_a_failed_row(bench):
    programs = bench.measure.programs.model_copy(
        update={
            "m3ftp_get": "./m3ftp -g {dcid} {server_ep} {client_ep} {remote_file} {local_file} && "
            "truncate -s -1 {local_file}"
        }
    )
    first, _ = rows(bench, tests=("m3ftp-get",), programs=programs)
    assert first.reason == "warm-up 1: node1: short: 3000000 of 3000001 bytes arrived"


def test_a_file_of_another_content_is_a_failed_row(bench):
    programs = bench.measure.programs.model_copy(
        update={
            "m3ftp_put": "sh -c 'head -c 3000001 /dev/zero >{local_file}.x; ./m3ftp -p {dcid} "
            "{server_ep} {client_ep} {remote_file} {local_file}.x; rm {local_file}.x'"
        }
    )
    first, _ = rows(bench, tests=("m3ftp-put",), programs=programs)
    assert first.reason == "warm-up 1: node0: what arrived is not what was sent: hashes differ"


def test_a_buffer_that_is_not_in_force_is_a_failed_row(bench):
    programs = bench.measure.programs.model_copy(
        update={"environment": {}, "buffer": "echo 131072"}
    )
    first, _ = rows(bench, tests=("m3ftp-get",), programs=programs)
    assert "a buffer of 65536 bytes was asked for, 131072 is in force" in first.reason


def processes() -> list[proc.Process]:
    return [one for pid in proc.pids() if (one := proc.process(pid))]


def test_endpoints_that_an_aborted_test_left_bound_are_freed(bench, trees):
    server = bench.peers[0].side.start(
        f"cd {trees[0].dest}/dvk-proxies/test/m3ftp && DVS_STATE={trees[0].state} "
        f"exec nsenter -p -t {trees[0].dc_pid} -- ./m3ftpd 0 20",
        60,
    )
    side = bench.peers[0].side
    assert side.wait_until(server, f"grep -q m3ftpd {trees[0].state}/DC0/procs", 5).code == 0
    os.killpg(server.group, 9)
    # Nobody has reaped it yet: dead is enough.
    while any(one.group == server.group and not one.dead for one in processes()):
        time.sleep(0.02)
    assert bound(trees[0])
    side.finish(server, 0)
    found = rows(bench, tests=("m3ftp-get",))
    assert [row.reason for row in found] == [None, None]


def test_an_endpoint_that_a_live_program_holds_is_not_taken(bench, trees):
    side = bench.peers[0].side
    server = side.start(
        f"cd {trees[0].dest}/dvk-proxies/test/m3ftp && DVS_STATE={trees[0].state} "
        f"exec nsenter -p -t {trees[0].dc_pid} -- ./m3ftpd 0 20",
        60,
    )
    try:
        assert side.wait_until(server, f"grep -q m3ftpd {trees[0].state}/DC0/procs", 5).code == 0
        first, second = rows(bench, tests=("m3ftp-get",))
        assert "endpoint 20 is bound by a program that still runs" in first.reason
        assert side.run(f"kill -0 {server.group}", 5).code == 0
    finally:
        side.finish(server, 0)


def test_an_unreachable_address_is_a_failed_ping(bench):
    bench.peers = {**bench.peers, 0: replace(bench.peers[0], address="10.217.0.77")}
    first, _ = rows(bench, tests=("ping",))
    assert first.reason == "warm-up 1: lost: 0 of 5 pings answered"


def test_no_room_is_said_before_anything_is_sent(bench):
    first, *_ = rows(bench, tests=("m3ftp-get",), file_size="900T")
    assert "MB free" in first.reason
    assert "measure.file_size" in first.reason


def test_a_program_that_is_stopped_leaves_no_process(bench):
    side = bench.peers[1].side
    handle = side.start("sleep 1000 & trap '' TERM; sleep 1001", 60)
    assert side.wait_until(handle, f"pgrep -g {handle.group} -f 1001", 5).code == 0
    side.finish(handle, 0)
    members = sh("ps", "-o", "stat=", "-g", str(handle.group), check=False).split()
    assert [state for state in members if state[0] != "Z"] == []


def test_a_program_outlives_its_runner_only_for_its_lifetime(bench):
    side = bench.peers[1].side
    handle = side.start("sleep 1000", 1)
    done = side.finish(handle, 10)
    assert (done.code, done.timed_out) == (137, False)
