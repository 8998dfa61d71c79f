"""Sides of the real DVS and their nodes as a look finds them, all as declared."""

from __future__ import annotations

from typing import Any

from umlaan.model.lab import Lab
from umlaan.plan import dvssides
from umlaan.plan import node as node_plan

HEAD = "ID Flags Proxies -pxsent- -pxrcvd- 10987654321098765432109876543210 Name\n"
MAP = "-" * 31 + "X"
# A peer's row: node flag, proxy flags, both counters.
Peer = tuple[str, int, int]


def view_of(lab: Lab, number: int, kind: str, peers: dict[int, Peer]) -> dict[str, Any]:
    """A side with its scripts as wanted, under what keeps its services."""
    side = dvssides.sides(lab)[number]
    nodes = HEAD + f" {number}     6  -1  0  0 {MAP} node{number}\n"
    proxies = ""
    for n, (flag, flags, count) in peers.items():
        nodes += f" {n}     {flag}  {n}  {count}  {count} {MAP} node{n}\n"
        proxies += f"  {n}     {flags}   742   743   node{n} {MAP}\n"
    return {
        "answers": True,
        "error": "",
        "files": {
            "info": f"name=DVS\nnodeid={number}\ndbglvl=0\n",
            "nodes": nodes,
            "proxies/info": proxies,
            "DC0/procs": "",
        },
        "dcs": {"0": {"pid": 10, "fault": None}},
        "pids": [1, 10, 742, 743],
        "hashes": {p: dvssides.digest(t) for p, t in dvssides.files_of(side, kind).items()},
        "kind": kind,
        "services": {name: {"up": True, "pid": 9} for name in side["services"]},
    }


def row_of(lab: Lab, name: str, dc: dict[str, Any] | None = None) -> dict[str, Any]:
    """A node that runs as declared, for ten minutes."""
    node = lab.node(name)
    out: dict[str, Any] = {"kernel": None, "record": None, "running": False, "uptime": None}
    out |= {"dc": dc} if dc else {}
    launch = node_plan.wanted_launch(lab, node, out)
    record = {
        "argv": launch.argv,
        "user": launch.user,
        "kernel_sha256": None,
        "namespace": node.network.namespace,
        "dc": dc,
    }
    return out | {"record": record, "running": True, "answers": True, "uptime": 600.0, "pid": 9}
