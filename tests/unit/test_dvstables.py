"""The tables of /proc/dvs: the procedure's own captures, real ones, and broken ones."""

from __future__ import annotations

from typing import Any

import pytest

from umlaan.agent import dvstables, verifydvs
from umlaan.plan.dvstables import side_by_side

# Both of the procedure, "COMPROBAR EL ESTADO DE PROXIES Y NODOS", blanks and tabs as they stand.
NODES_UML = """\
ID Flags Proxies -pxsent- -pxrcvd- 10987654321098765432109876543210 Name
 0     E       0     2767     1181 -------------------------------X node0           
 1     6      -1        0        0 -------------------------------X node1           
"""
PROXIES_UML = """\
Proxies Flags Sender Receiver --Proxies_Name- 10987654321098765432109876543210 
\t  0     7    742      743           node0 -------------------------------X
"""
PROXIES_HOST = """\
Proxies Flags Sender Receiver --Proxies_Name- 10987654321098765432109876543210 
\t \t  1     7   4963     4964           node1 ------------------------------X-
"""
NODES_HOST = """\
ID Flags Proxies -pxsent- -pxrcvd- 10987654321098765432109876543210 Name
 0     6      -1        0        0 -------------------------------X node0           
 1     E       1     1577     1130 -------------------------------X node1           
"""
INFO = """\
name=TEST_CLUSTER
nodeid=1
nr_dcs=32
dbglvl=FFFFFF
version=1
flags=105
sizeof(proc)=776
"""
PROCS = """\
DC pnr -endp -lpid/vpid- nd flag misc -getf -sndt -wmig -prxy name
 0   0     0  7805/2      0    0   20 27342 27342 27342 27342 server0
 0   1     1    -1/-1     1 1000    0 27342 27342 27342 27342 client1
 0  20    20   812/812    0    8   20 31438 27342 27342 27342 m3ftpd
"""


def test_the_procedures_captures() -> None:
    nodes = dvstables.nodes(NODES_UML)
    assert sorted(nodes) == [0, 1]
    assert nodes[0]["flags"] == "E" and (nodes[0]["sent"], nodes[0]["received"]) == (2767, 1181)
    assert nodes[1]["proxy"] == -1 and nodes[1]["dcs"] == [0]
    proxies = dvstables.proxies(PROXIES_UML)
    assert proxies[0]["flags"] == 7 and proxies[0]["name"] == "node0"
    assert (proxies[0]["sender"], proxies[0]["receiver"]) == (742, 743)
    assert dvstables.proxies(PROXIES_HOST)[1]["nodes"] == [1]


def test_info_and_procs() -> None:
    assert dvstables.info(INFO)["nodeid"] == "1"
    assert dvstables.info(INFO)["sizeof(proc)"] == "776"
    rows = dvstables.procs(PROCS)
    assert [(r["endpoint"], r["pid"], r["node"], r["name"]) for r in rows] == [
        (0, 7805, 0, "server0"),
        (1, -1, 1, "client1"),
        (20, 812, 0, "m3ftpd"),
    ]


def test_joined_is_said_only_of_e_and_7_in_the_dc() -> None:
    files = {"nodes": NODES_HOST, "proxies/info": PROXIES_HOST}
    assert dvstables.unjoined(files, 1, [0]) == []
    assert dvstables.unjoined(files, 1, [3]) == ["it is not in DC3"]
    half = {**files, "proxies/info": PROXIES_HOST.replace("1     7", "1     3")}
    assert dvstables.unjoined(half, 1, [0]) == [
        "its proxy has its sender connected, its receiver is not"
    ]
    lying = {**files, "nodes": NODES_HOST.replace("1     E", "1     A")}
    assert dvstables.unjoined(lying, 1, [0]) == ["its flags are A, not E"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage\n\0\n",
        NODES_HOST[:120],
        "ID Flags Proxies -pxsent- -pxrcvd- 10987654321098765432109876543210 Name\n",
        " x     E       1     1577     1130 -------------------------------X node1\n",
    ],
)
def test_broken_tables_say_nothing_of_a_peer(text: str) -> None:
    assert 1 not in dvstables.nodes(text)
    assert dvstables.unjoined({"nodes": text, "proxies/info": text}, 1, [0]) == [
        "its proxy is not there"
    ]


def test_a_table_cut_anywhere_says_nothing_that_the_whole_one_does_not() -> None:
    """A reader may come while the DVK writes; the name alone may be cut short."""

    def said(row: dict[str, Any], *keys: str) -> list[Any]:
        return [row[key] for key in keys]

    for table, parse, keys in (
        (NODES_HOST, dvstables.nodes, ("flags", "proxy", "sent", "received", "dcs")),
        (NODES_UML, dvstables.nodes, ("flags", "proxy", "sent", "received", "dcs")),
        (PROXIES_HOST, dvstables.proxies, ("flags", "sender", "receiver", "name")),
        (PROXIES_UML, dvstables.proxies, ("flags", "sender", "receiver", "name")),
    ):
        whole = parse(table)
        for cut in range(len(table)):
            for number, row in parse(table[:cut]).items():
                assert said(row, *keys) == said(whole[number], *keys), table[:cut]
    rows = [(r["endpoint"], r["pid"], r["node"]) for r in dvstables.procs(PROCS)]
    for cut in range(len(PROCS)):
        found = [(r["endpoint"], r["pid"], r["node"]) for r in dvstables.procs(PROCS[:cut])]
        assert found == rows[: len(found)], PROCS[:cut]
    values = dvstables.info(INFO)
    for cut in range(len(INFO)):
        # Only the last value may be short.
        *before, _ = [*dvstables.info(INFO[:cut]).items()] or [("", "")]
        assert dict(before).items() <= values.items()


def test_the_cells_that_do_not_agree_are_marked() -> None:
    host = {
        "name": "node0",
        "peer": 1,
        "files": {
            "nodes": NODES_HOST.replace("1     E", "1     2"),
            "proxies/info": PROXIES_HOST.replace("1     7", "1     1"),
        },
    }
    guest = {
        "name": "node1",
        "peer": 0,
        "files": {"nodes": NODES_UML, "proxies/info": PROXIES_UML},
    }
    lines = side_by_side(host, guest)
    assert lines[0].split("  |  ")[1] == "node1: nodes"
    marked = [line for line in lines if ">" in line]
    assert len(marked) == 2
    assert ">2<" in marked[0].split("|")[0] and ">1<" in marked[1].split("|")[0]
    assert ">none<" in "\n".join(side_by_side({**host, "files": {}}, guest))


def test_what_alone_is_wrong_is_marked_alone() -> None:
    """Counters that do not move, and one DC of two in which the peer is not."""
    files = {"nodes": NODES_HOST, "proxies/info": PROXIES_HOST}
    host = {"name": "node0", "peer": 1, "files": files, "still": ["received"], "dcids": [0]}
    guest = {
        "name": "node1",
        "peer": 0,
        "files": {"nodes": NODES_UML, "proxies/info": PROXIES_UML},
        "still": [],
        "dcids": [0, 3],
    }
    lines = side_by_side(host, guest)
    marked = [line for line in lines if ">" in line]
    assert [line.count(">") for line in marked] == [1, 1]
    assert ">0<" in marked[0].split("|")[1] and ">1130<" in marked[1].split("|")[0]


def test_counters_that_stay_are_told_with_their_cells() -> None:
    sides = {
        name: {"name": name, "number": number, "dcs": []}
        for name, number in (("node0", 0), ("node1", 1))
    }
    views: dict[str, Any] = {
        "node0": {"files": {"nodes": NODES_HOST, "proxies/info": PROXIES_HOST}},
        "node1": {"files": {"nodes": NODES_UML, "proxies/info": PROXIES_UML}},
    }
    for view in views.values():
        view |= {"answers": True, "error": "", "dcs": {}, "pids": []}
    moved = NODES_UML.replace("2767", "2768").replace("1181", "1182")
    asked = {"own": "node1", "hub": "node0", "sides": sides, "beats": True, "before": views}
    pairs = verifydvs.Pairs(asked)
    pairs.now = {**views, "node1": {**views["node1"], "files": dict(views["node1"]["files"])}}
    pairs.now["node1"]["files"]["nodes"] = moved
    faults, cells = pairs._still({"other": "node0", "number": 0, "dcids": [0]})
    assert faults == [
        "node0 says: its counter of packets sent stays at 1577",
        "node0 says: its counter of packets received stays at 1130",
    ]
    assert cells == {"node0": ["sent", "received"]}
