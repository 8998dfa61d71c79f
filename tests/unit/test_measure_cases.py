"""The plan of a run: every pair, both directions, and what is left out with its reason."""

import pytest
from pydantic import ValidationError

from umlaan.measure.cases import Place, blocks, described, human, plan
from umlaan.measure.ledger import Parameters
from umlaan.model.measure import Measure, MeasurePrograms

HOST, ONE, TWO = Place(0, "host"), Place(1, "uml"), Place(2, "uml")


def of(planned, test):
    return [c for c in planned.cases if c.test == test]


def test_host_and_guest_are_each_server_and_client():
    planned = plan([ONE, HOST], Measure())
    for test in ("message", "ping"):
        pairs = [(c.server.number, c.client.number) for c in of(planned, test)]
        assert pairs == [(0, 1), (1, 0)]
    assert len(of(planned, "m3ftp-get")) == len(of(planned, "m3ftp-put")) == 4
    assert {(c.parameters.buffer, c.parameters.file) for c in of(planned, "m3ftp-get")} == {
        (65536, 69227508),
        (1048576, 69227508),
    }
    sizes = [c.parameters.size for c in of(planned, "copy") if c.server is HOST]
    assert sizes == [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20]
    assert all(c.repeats == 5 and c.warmup == 1 for c in planned.cases)


def test_scp_needs_a_server_that_is_a_guest():
    planned = plan([HOST, ONE, TWO], Measure(tests=("scp-get",)))
    assert {(c.server, c.client) for c in planned.cases} == {
        *((ONE, HOST), (TWO, HOST), (ONE, TWO), (TWO, ONE))
    }
    assert planned.left_out == (
        "scp-get, node1 → node0: the lab host offers its nodes no ssh server",
        "scp-get, node2 → node0: the lab host offers its nodes no ssh server",
    )


def test_nodes_are_measured_pairwise():
    planned = plan([Place(n, "uml") for n in (3, 1, 2)], Measure(tests=("message",)))
    pairs = [(c.server.number, c.client.number) for c in planned.cases]
    assert pairs == [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)]


def test_loop_programs_with_fixed_nodes_run_only_that_way():
    programs = MeasurePrograms(loop_nodes=(0, 1))
    planned = plan([HOST, ONE], Measure(tests=("message", "ping"), programs=programs))
    assert [(c.server.number, c.client.number) for c in of(planned, "message")] == [(0, 1)]
    assert len(of(planned, "ping")) == 2
    assert "compiled for server node0, client node1" in planned.left_out[0]
    both = MeasurePrograms(loop_nodes=((0, 1), (1, 0)))
    planned = plan([HOST, ONE, TWO], Measure(tests=("message",), programs=both))
    assert [(c.server.number, c.client.number) for c in planned.cases] == [(0, 1), (1, 0)]
    assert len(planned.left_out) == 4


@pytest.mark.parametrize("nodes", [[], [HOST], [ONE, ONE]])
def test_fewer_than_two_nodes_is_said(nodes):
    with pytest.raises(ValueError, match="two nodes or more"):
        plan(nodes, Measure())


@pytest.mark.parametrize(
    ("size", "wanted"), [(1024, 100), (65536, 100), (1 << 18, 64), (1 << 20, 16), (1 << 24, 10)]
)
def test_large_blocks_are_copied_fewer_times(size, wanted):
    assert blocks(size, Measure()) == wanted


def test_a_small_wanted_count_is_kept():
    assert blocks(1 << 24, Measure(copy_count=3)) == 3


@pytest.mark.parametrize(
    ("size", "text"),
    [(1024, "1 KiB"), (1 << 20, "1 MiB"), (69227508, "69.2 MB"), (56, "56 B"), (1500, "1500 B")],
)
def test_sizes_as_people_read_them(size, text):
    assert human(size) == text


def test_parameters_as_words():
    assert described(Parameters(size=65536, count=100)) == "64 KiB × 100"
    assert described(Parameters(count=200, children=2)) == "× 200, 2 pairs"
    assert described(Parameters(buffer=65536, file=69227508)) == "file 69.2 MB, buffer 64 KiB"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"copy_sizes": ["64K", "65536"]}, "none twice"),
        ({"copy_sizes": ["0"]}, "one byte or more"),
        ({"tests": ["copy", "copy"]}, "none twice"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"programs": {"copy_client": "./x {kids}"}}, "unknown {kids}; allowed: "),
        ({"programs": {"ready": "awk '{print}'"}}, "unknown {print}"),
        ({"programs": {"ready": "awk '{'"}}, "doubled"),
        ({"repeat": 3}, "Extra inputs"),
    ],
)
def test_bad_data_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Measure.model_validate(values)


def test_a_size_in_plain_bytes_may_be_a_number():
    measure = Measure.model_validate({"file_size": 3000001, "copy_sizes": [1000, "1K"]})
    assert (measure.file_size, measure.copy_sizes) == ("3000001", ("1000", "1K"))
    with pytest.raises(ValidationError):
        Measure.model_validate({"file_size": True})
