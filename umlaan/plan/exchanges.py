"""The short message loop and the checked block copy of verification, as the agent takes them."""

from __future__ import annotations

import shlex
import string
from typing import Any

from umlaan.agent import dcfile
from umlaan.model.lab import Lab
from umlaan.model.measure import MeasurePrograms
from umlaan.plan.dvssides import Side, unbind_command

MESSAGES = 10
BLOCKS, BLOCK = 4, 65536
# Of one child pair, in the loop programs' own numbering: start and stop, then the child's.
SERVER_ENDS, CLIENT_ENDS = (0, 2), (1, 3)


def tests(lab: Lab, server: Side, client: Side) -> tuple[list[dict[str, Any]], str | None]:
    """(tests between two sides, why there are none)."""
    programs = lab.settings(_name(server)).measure.programs
    built = programs.loop_nodes
    if built is not None and (server["number"], client["number"]) not in built:
        known = ", ".join(f"node{a} and node{b}" for a, b in built)
        return [], f"the loop programs are compiled for {known or 'no pair'}"
    common = {dc["dcid"] for dc in server["dcs"]} & {dc["dcid"] for dc in client["dcs"]}
    if not common:
        return [], "they share no DC"
    dcid = min(common)
    return [
        _test(lab, programs, server, client, dcid, row)
        for row in (
            {
                "what": "message loop",
                "serve": programs.message_server,
                "ask": programs.message_client,
                "figure": r"Time for a pair of SENDREC/RECEIVE-SEND= *([\d.]+)",
                "unit": "ms a pair",
                "scale": 1.0,
                "count": MESSAGES,
                "bytes": MESSAGES * 64,
            },
            {
                "what": "block copy",
                "serve": programs.copy_server,
                "ask": programs.copy_client,
                "figure": r"Throuhput = ([\d.]+) \[bytes/s\]",
                "unit": "MB/s",
                "scale": 1e-6,
                "count": BLOCKS,
                "bytes": BLOCKS * BLOCK,
            },
        )
    ], None


def _name(side: Side) -> str:
    return str(side["carrier"] if side["place"] == "host" else f"@uml/{side['name']}")


def _test(
    lab: Lab,
    programs: MeasurePrograms,
    server: Side,
    client: Side,
    dcid: int,
    row: dict[str, Any],
) -> dict[str, Any]:
    names = {
        "dcid": dcid,
        "count": row["count"],
        "size": BLOCK,
        "children": 1,
        "server_ep": SERVER_ENDS[0],
        "client_ep": CLIENT_ENDS[0],
        "server": server["number"],
        "client": client["number"],
    }
    return {
        **row,
        "server": server["name"],
        "client": client["name"],
        "dcid": dcid,
        "serve": _program(lab, programs, server, client, row["serve"], names),
        "ask": _program(lab, programs, client, server, row["ask"], names),
        "ready": programs.ready.format(**_values(server, client, names)),
        "endpoints": [*SERVER_ENDS, *CLIENT_ENDS],
        "unbind": {
            side["name"]: {
                str(end): unbind_command(lab, side["number"], dcid, end)
                for end in (*SERVER_ENDS, *CLIENT_ENDS)
            }
            for side in (server, client)
        },
    }


def _values(side: Side, other: Side, names: dict[str, Any]) -> dict[str, Any]:
    return {
        **names,
        "dest": side["tree"],
        "state": side["state"],
        "run": side["run"],
        "node": side["number"],
        "name": side["name"],
        "address": side["address"],
        "cluster": side["cluster"],
        "debug": side["debug"],
        "remote": other["number"],
        "remote_name": other["name"],
    }


def _program(
    lab: Lab,
    programs: MeasurePrograms,
    side: Side,
    other: Side,
    template: str,
    names: dict[str, Any],
) -> str:
    """A program in its own folder, with its environment; on a lab host inside the DC."""
    values = _values(side, other, names)
    dvs = lab.settings(_name(side)).dvs
    words = []
    for name, text in {**(dvs.programs.environment if dvs else {}), **programs.environment}.items():
        needed = {n for _, n, _, _ in string.Formatter().parse(text) if n}
        if needed <= set(values):
            words.append(shlex.quote(f"{name}={text.format(**values)}"))
    folder = shlex.quote(f"{side['tree']}/{programs.loop_dir.format(**values)}")
    line = f"cd {folder} && exec env {' '.join(words)} {template.format(**values)}"
    if side["place"] != "host":
        return line
    file = next((dc["file"] for dc in side["dcs"] if dc["dcid"] == names["dcid"]), None)
    # The procedure's way: . DC0.sh; nsenter -p -t $DC0 ./loop_r-s_server
    if file:
        line = (
            f"{dcfile.READ}\ndc_pid {names['dcid']} {shlex.quote(file)} && cd {folder} && "
            f"exec nsenter -p -t $pid -- env {' '.join(words)} {template.format(**values)}"
        )
    inside = f"exec ip netns exec {side['namespace']} " if side["namespace"] else "exec "
    return f"{inside}sh -c {shlex.quote(line)}"
