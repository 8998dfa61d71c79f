"""Nodes that must start anew together: a proxy that outlived its peer connects no more. Pure.

Procedure: none; there both sides are started by hand, in one go. ``dvs.programs.proxy_restart``
is "lab" where proxies are like that.
"""

from __future__ import annotations

from typing import Any

from umlaan.agent import dvstables
from umlaan.plan.dvssides import Side

View = dict[str, Any]


def applies(sides: dict[int, Side]) -> bool:
    """True where every side is a UML node whose proxies ask for it; a machine is not restarted."""
    return bool(sides) and all(
        side["proxy_restart"] == "lab" and side["place"] == "guest" for side in sides.values()
    )


def with_a_machine(sides: dict[int, Side]) -> bool:
    """True where proxies ask for it and a machine is a side: that takes a reboot of it."""
    return any(side["place"] == "host" for side in sides.values()) and all(
        side["proxy_restart"] == "lab" for side in sides.values()
    )


def lost(
    sides: dict[int, Side],
    views: dict[str, View],
    starting: dict[str, str],
    uptimes: dict[str, float],
) -> list[str]:
    """Why the pairs of a lab cannot join again as its nodes run now; empty where they can.

    views: of the sides that run and answer, with uptimes in seconds. starting: nodes that this run
    is about to start, with what was said of them.
    """
    out = []
    names = {side["number"]: side["name"] for side in sides.values()}
    for side in sides.values():
        view = views.get(side["name"])
        if view is None:
            continue
        for peer in side["peers"]:
            name = names.get(peer["number"])
            if name is None:
                # A node whose own data says that it has no DVS.
                continue
            was = connected_once(view["files"], peer["number"])
            if name in starting:
                if was:
                    out.append(f"{side['name']}'s proxy to {name} outlives it, {starting[name]}")
            elif name in views and not dvstables.connected(view["files"], peer["number"]):
                hung = _bound_for_long(side, peer["number"], name, views, uptimes)
                if was or hung:
                    flags = dvstables.proxy_flags(view["files"], peer["number"])
                    said = dvstables.flags_in_words(flags)
                    out.append(f"{side['name']}'s proxy to {name} {said}")
    return out


def _bound_for_long(
    side: Side, number: int, name: str, views: dict[str, View], uptimes: dict[str, float]
) -> bool:
    """Whether both proxies of a pair stand and had their time; others are only to be started."""
    if min(uptimes[side["name"]], uptimes[name]) < side["connect_timeout"]:
        return False
    pair = ((side["name"], number), (name, side["number"]))
    return all((dvstables.proxy_flags(views[one]["files"], other) or 0) & 1 for one, other in pair)


def connected_once(files: dict[str, str], peer: int) -> bool:
    """Whether a side's proxy to a peer is or was connected since its node started."""
    node = dvstables.nodes(files.get("nodes", "")).get(peer)
    moved = node is not None and (node["sent"] > 0 or node["received"] > 0)
    return dvstables.connected(files, peer) or moved
