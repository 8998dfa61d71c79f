"""``dvsup look|up|write|join|down ORDER``: the DVS of one side, host or guest, brought up and read.

``look`` answers {name: view} for {"sides": [side, …]}. ``up`` writes the side's scripts, has the
DVS initialised and the DC made, and its proxies started; it ends once the proxies are bound.
``join`` waits until peers are joined. ``down`` ends it all on a lab host. Every wait has a
condition, says what it waits for, and is given up when the list of what is missing stands still.
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

from umlaan.agent import dvslook, dvsservices, dvstables, trust
from umlaan.agent.dvslook import Side, View
from umlaan.agent.dvsservices import NotUp, there
from umlaan.agent.patience import Wait, summary


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
    sides: list[Side],
    lacks: Callable[[dict[str, View], Wait], list[str]],
    patience: float,
    what: str,
) -> dict[str, View]:
    """Look until nothing lacks any more. NotUp, with the first of what lacks, once that stands."""
    waiting = Wait(patience)
    while True:
        views = dvslook.looks(sides)
        missing = [f"{n}: no answer: {v['error']}" for n, v in views.items() if not v["answers"]]
        missing += [] if missing else lacks(views, waiting)
        if not missing:
            return views
        if not waiting.goes_on(frozenset(missing)):
            text = "\n".join(f"    {line}" for line in summary(missing))
            raise NotUp(f"{what}: {waiting.vain()}, for {len(missing)} things:\n{text}")
        if waiting.due():
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            said = f"{what}: waiting for {missing[0]}{more}, {waiting.seconds():.0f} s"
            print(said, flush=True)
        waiting.pause(least=0.1)


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
        lambda views, _: undone(side, views[side["name"]]),
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


def stuck(
    pairs: list[list[Any]], sides: dict[str, Side], views: dict[str, View]
) -> list[tuple[str, str]]:
    """The pairs that do not join though the proxies of both sides are bound, each once.

    A proxy that is not bound yet is starting: its peer's would only lose its way by a new start.
    """
    out = []
    for one, number, other, dcids in pairs:
        if (other, one) in out or not dvstables.unjoined(views[one]["files"], number, dcids):
            continue
        flags = (
            dvstables.proxy_flags(views[one]["files"], number),
            dvstables.proxy_flags(views[other]["files"], sides[one]["number"]),
        )
        if all((flag or 0) & 1 for flag in flags):
            out.append((one, other))
    return out


def join(order: dict[str, Any]) -> str:
    """Wait until every pair is joined in the tables of both its sides.

    Where a proxy may be ended ("again"), those of pairs that do not join are started anew, once:
    when nothing has moved for half the patience, and none whose peer's is still starting.
    """
    begun, what = time.monotonic(), order["what"]
    sides = {side["name"]: side for side in order["sides"]}

    def lacks(views: dict[str, View], waiting: Wait) -> list[str]:
        missing = unjoined(order["pairs"], views)
        if missing and order["again"] and waiting.quiet() > order["deadline"] / 2:
            order["again"] = False
            for one, other in stuck(order["pairs"], sides, views):
                print(f"{what}: {one} ↔ {other}: their proxies are started anew", flush=True)
                dvsservices.again(sides[one], views[one]["kind"], f"dvs-proxy-{other}")
                dvsservices.again(sides[other], views[other]["kind"], f"dvs-proxy-{one}")
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
        with contextlib.suppress(OSError):
            # Only one of root's own: in /dev/shm the name may be anybody's.
            if dc["file"] and trust.read(dc["file"]):
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
