"""``dvsup look|up|write|join|down ORDER``: the DVS of one side, host or guest, brought up and read.

``look`` answers {name: view} for {"sides": [side, …]}. ``up`` writes the side's scripts, has the
DVS initialised and the DC made, and its proxies started; it ends once the proxies are bound.
``join`` waits until peers are joined. ``down`` ends it all on a lab host. Every wait has a
condition and a deadline, and says what it waits for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from umlaan.agent import dvslook, dvsservices, dvstables
from umlaan.agent.dvslook import Side, View
from umlaan.agent.dvsservices import NotUp, there

EVERY_S = 3.0


def _up_lines(side: Side, kind: str) -> list[str]:
    if kind != "systemd":
        return [f"{shlex.quote(side['folder'])}/up"]
    # By its unit: what it starts in an ssh session ends with all sessions, before any unit stops,
    # when the machine goes down; a DC's init would take its UMLs along.
    unit = dvslook.unit(side, "dvs-up")
    said = f"journalctl -q -n 8 -o cat --no-pager -u {unit} >&2"
    return ["systemctl daemon-reload", f"systemctl restart {unit} || {{ {said}; exit 1; }}"]


def _up_s(side: Side) -> float:
    """The script has a deadline for each of its steps, and says which; this is only behind it."""
    return float(60 + side["start_timeout"] * (1 + len(side["dcs"])))


def undone(side: Side, view: View) -> list[str]:
    """What a side still lacks of its own part; empty once it is up and its proxies are bound."""
    out = []
    found = dvstables.info(view["files"].get("info", ""))
    if found.get("nodeid") != str(side["number"]):
        out.append(f"nodeid={side['number']} in {side['state']}/info")
    out += [f"DC{n}: {dc['fault']}" for n, dc in view["dcs"].items() if dc["fault"]]
    proxies = dvstables.proxies(view["files"].get("proxies/info", ""))
    for peer in side["peers"]:
        if not proxies.get(peer["number"], {"flags": 0})["flags"] & 1:
            out.append(f"its proxy to {peer['name']} bound")
    out += [
        f"service {name}"
        for name in side["services"]
        if not view["services"].get(name, {"up": False})["up"]
    ]
    return out


def await_(
    sides: list[Side], lacks: Callable[[dict[str, View]], list[str]], seconds: float, what: str
) -> dict[str, View]:
    """Look until nothing lacks any more. NotUp, with all that lacks, at the deadline."""
    begun = shown = time.monotonic()
    pause = 0.1
    while True:
        views = dvslook.looks(sides)
        missing = [f"{n}: no answer: {v['error']}" for n, v in views.items() if not v["answers"]]
        missing += [] if missing else lacks(views)
        now = time.monotonic()
        if not missing:
            return views
        if now - begun >= seconds:
            text = "\n".join(f"    {line}" for line in missing)
            raise NotUp(f"{what}: waited {now - begun:.0f} s in vain for\n{text}")
        if now - shown >= EVERY_S:
            shown = now
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            print(f"{what}: waiting for {missing[0]}{more}, {now - begun:.0f} s", flush=True)
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def up(order: dict[str, Any]) -> str:
    """One side's own part; the line for the user. NotUp if it does not come."""
    side, begun = order["side"], time.monotonic()
    kind = order["kind"]
    if kind == "own" and side["place"] == "guest":
        raise NotUp(
            f"{side['name']}: its root has neither systemd, runit nor sysvinit "
            "to keep proxies running"
        )
    if order["files"]:
        dvsservices.write(side, order["files"])
    if order["reinit"]:
        end(side, kind)
    for dcid, endpoint, command in order["unbind"]:
        there(side, f"unbind endpoint {endpoint} of DC{dcid}", command)
    there(side, f"{side['folder']}/up", "\n".join(_up_lines(side, kind)), wait=_up_s(side))
    dvsservices.follow(side, kind, order)
    await_(
        [side],
        lambda views: undone(side, views[side["name"]]),
        side["start_timeout"] + 10 * dvslook.slow(side),
        f"{side['name']}'s DVS",
    )
    return f"{side['name']}: DVS up on its side after {time.monotonic() - begun:.1f} s"


def unjoined(pairs: list[list[Any]], views: dict[str, View]) -> list[str]:
    """For each [side, peer's number, peer's name, dcids] what is missing."""
    return [
        f"{side} ↔ {name}: {side} says {fault}"
        for side, number, name, dcids in pairs
        for fault in dvstables.unjoined(views[side]["files"], number, dcids)
    ]


def join(order: dict[str, Any]) -> str:
    """Wait until every pair is joined in the tables of both its sides.

    Where a proxy may be ended ("again"), those of pairs that are not joined at half the time are
    started anew, once.
    """
    begun, what = time.monotonic(), order["what"]
    sides = {side["name"]: side for side in order["sides"]}

    def lacks(views: dict[str, View]) -> list[str]:
        missing = unjoined(order["pairs"], views)
        if missing and order["again"] and time.monotonic() - begun > order["deadline"] / 2:
            order["again"] = False
            for side, number, name, dcids in order["pairs"]:
                if dvstables.unjoined(views[side]["files"], number, dcids):
                    print(f"{what}: {side} ↔ {name}: their proxies are started anew", flush=True)
                    dvsservices.again(sides[side], views[side]["kind"], f"dvs-proxy-{name}")
                    dvsservices.again(sides[name], views[name]["kind"], f"dvs-proxy-{side}")
        return missing

    try:
        await_(order["sides"], lacks, order["deadline"], what)
    except NotUp as fault:
        raise NotUp("\n".join(filter(None, [str(fault), order["remedy"]]))) from None
    return f"{what}: joined after {time.monotonic() - begun:.1f} s"


def answered(side: Side) -> View:
    """A look at a side. NotUp where it does not answer: what lives there is not known then."""
    view = dvslook.look(side)
    if not view["answers"]:
        raise NotUp(f"{side['name']}: its DVS cannot be looked at: {view['error']}")
    return view


def end(side: Side, kind: str) -> None:
    """Proxies, DCs and the DVS of one side ended, as far as its programs can."""
    dvsservices.end(side, kind)
    for dc in side["dcs"]:
        if dc["end"]:
            dvslook.run_there(side, dc["end"], None, 30)
    view = answered(side)
    for dcid, dc in view["dcs"].items():
        if dc["pid"] and not dc["fault"]:
            there(
                side,
                f"end DC{dcid}",
                f"kill -TERM {dc['pid']}; sleep 1; kill -KILL {dc['pid']} 2>/dev/null; true",
            )
    if side["init_end"]:
        dvslook.run_there(side, side["init_end"], None, 30)


def down(order: dict[str, Any]) -> str:
    """A lab host's side away: services, DCs, DVS state, scripts and units."""
    side, kind = order["side"], order["kind"]
    end(side, kind)
    dvsservices.away(side, kind)
    shutil.rmtree(side["folder"], ignore_errors=True)
    for dc in side["dcs"]:
        with contextlib.suppress(FileNotFoundError, TypeError):
            os.unlink(dc["file"])
    view = answered(side)
    left = [
        f"DC{n}'s init {dc['pid']}"
        for n, dc in view["dcs"].items()
        if dc["pid"] and not dc["fault"]
    ]
    left += [f"service {name}" for name, row in view["services"].items() if row["up"]]
    if left:
        raise NotUp(f"{side['name']}: still there: {', '.join(left)}")
    if "info" in view["files"]:
        return (
            f"{side['name']}: DC and services down; the DVS stays initialised until the next boot, "
            "dvs.programs.init_end is None"
        )
    return f"{side['name']}: DVS down"


def written(order: dict[str, Any]) -> str:
    """Only the files, for a node that is about to be started anew: nothing running is touched."""
    side = order["side"]
    dvsservices.write(side, order["files"])
    dvsservices.forget(side, order["kind"], order["gone"])
    return f"{side['name']}: {len(order['files'])} files written"


def main(argv: list[str]) -> int:
    """The ``dvsup`` verb."""
    verb, order = argv[0], json.loads(argv[1])
    if verb == "look":
        print(json.dumps(dvslook.looks(order["sides"])))
        return 0
    try:
        print({"up": up, "join": join, "down": down, "write": written}[verb](order), flush=True)
    except (NotUp, OSError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
