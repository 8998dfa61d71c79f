"""How long a side of the DVS is waited for, what is said of it, and which proxies start anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.test_patience import FakeClock
from umlaan.agent import dvsup, patience
from umlaan.agent.dvsservices import NotUp
from umlaan.plan import verify
from umlaan.plan.dvstables import side_by_side

NODES = "  {0:3}  {1:>4}  {2:>6}     5     5 -------------------------------{3} node{0}\n"
PROXIES = "  {0:3}  {1:>4}  100  101  node{0}  ------------------------------X-\n"
Views = dict[str, dict[str, Any]]


def side(number: int, count: int) -> dict[str, Any]:
    peers = [
        {"number": n, "name": f"node{n}", "dcids": [0], "service": f"dvs-proxy-node{n}"}
        for n in range(1, count + 1)
        if n != number
    ]
    return {"name": f"node{number}", "number": number, "peers": peers, "state": "/run/x"}


def view(number: int, flags: dict[int, int]) -> dict[str, Any]:
    """What a side says of its peers: {number: its proxy's flags}."""
    nodes = NODES.format(number, "6", -1, "X")
    for n, flag in flags.items():
        nodes += NODES.format(n, "E" if flag == 7 else "2", n, "X" if flag == 7 else "-")
    proxies = "".join(PROXIES.format(n, flag) for n, flag in flags.items())
    files = {"nodes": nodes, "proxies/info": proxies, "info": f"nodeid={number}\n"}
    return {"answers": True, "error": "", "files": files, "kind": "runit", "dcs": {}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(dvsup, "Wait", lambda seconds: patience.Wait(seconds, clock=fake))
    return fake


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(
        dvsup.dvsservices, "again", lambda side, kind, name: names.append(f"{side['name']} {name}")
    )
    return names


def seen_as(monkeypatch: pytest.MonkeyPatch, looks: Iterator[Views]) -> None:
    monkeypatch.setattr(dvsup.dvslook, "looks", lambda sides: next(looks))


def order(count: int, more: Callable[[int], bool] = lambda n: True) -> dict[str, Any]:
    sides = [side(n, count) for n in range(1, count + 1)]
    pairs = [
        [one, number, other, [0]]
        for n in range(2, count + 1)
        if more(n)
        for one, number, other in ((f"node{n}", 1, "node1"), ("node1", n, f"node{n}"))
    ]
    return {
        "sides": sides,
        "pairs": pairs,
        "deadline": 60,
        "again": True,
        "remedy": "",
        "what": "node1 and its peers",
    }


def test_pairs_that_join_one_after_the_other_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, ended: list[str]
) -> None:
    """Twelve pairs, one joined every 25 s: five minutes in all, and no proxy is started anew."""

    def looks() -> Iterator[Views]:
        for joined in range(13):
            clock.now += 25
            here = {n: 7 if n <= joined + 1 else 1 for n in range(2, 14)}
            yield {
                "node1": view(1, here),
                **{f"node{n}": view(n, {1: here[n]}) for n in range(2, 14)},
            }

    seen_as(monkeypatch, looks())
    dvsup.join(order(13))
    assert clock.now - 1000 > 300
    assert ended == []


def test_proxies_of_a_pair_that_stands_are_started_anew_but_not_where_the_peers_is_starting(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, ended: list[str]
) -> None:
    def looks() -> Iterator[Views]:
        while True:
            clock.now += 1
            # node2's proxy is bound and does not connect; node3's is not there yet.
            yield {
                "node1": view(1, {2: 3, 3: 1}),
                "node2": view(2, {1: 1}),
                "node3": view(3, {}),
            }

    seen_as(monkeypatch, looks())
    with pytest.raises(NotUp):
        dvsup.join(order(3))
    assert ended == ["node2 dvs-proxy-node1", "node1 dvs-proxy-node2"]


def test_what_is_missing_in_the_end_is_a_summary(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, ended: list[str]
) -> None:
    def looks() -> Iterator[Views]:
        while True:
            clock.now += 1
            yield {f"node{n}": view(n, {}) for n in range(1, 17)}

    seen_as(monkeypatch, looks())
    with pytest.raises(NotUp) as told:
        dvsup.join(order(16))
    text = str(told.value)
    assert "without progress, for 30 things" in text
    assert "and 27 more" in text and len(text.splitlines()) == 5


def wrong(number: int) -> dict[str, Any]:
    flags = dict.fromkeys(range(2, 17), 1)
    tables = [
        {"name": "node1", "peer": number, "files": view(1, flags)["files"], "dcids": [0]},
        {"name": f"node{number}", "peer": 1, "files": view(number, {1: 1})["files"], "dcids": [0]},
    ]
    what = f"node1 ↔ node{number}"
    return {"what": what, "ok": False, "host": "", "guest": "", "detail": "", "tables": tables}


def test_a_verification_shows_the_tables_of_one_pair_and_counts_the_rest() -> None:
    text = verify.table("node1", [wrong(n) for n in range(2, 17)])
    assert text.count("node1: nodes") == 1
    assert "and 12 more pairs that are WRONG" in text
    assert len(text.splitlines()) < 20, text


def test_of_a_long_table_the_rows_of_the_pair_are_shown() -> None:
    lines = side_by_side(*wrong(5)["tables"])
    text = "\n".join(lines)
    assert ">2<" in text and ">1<" in text
    assert "node7" not in text and len(lines) == 7, text
