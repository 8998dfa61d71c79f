"""The DVS of one side: what differs from what is wanted, and why. Pure.

Procedure, "ARRANCAR DVS EN HOST Y UML"; every wait there is a condition here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from umlaan.agent import dvstables
from umlaan.model.lab import Lab
from umlaan.plan.dvssides import Side, asked, digest, files_of, light, unbind_command

View = dict[str, Any]
PROXY = "dvs-proxy-"


@dataclass
class Change:
    """What is to be done on one side, with every reason; nothing where reasons is empty."""

    reasons: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    restart: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unbind: list[list[Any]] = field(default_factory=list)
    reinit: bool = False
    kind: str = "own"
    # Services that neither run nor have left a slot in the DVS: there is nothing to be ended.
    idle: set[str] = field(default_factory=set)

    def stuck(self) -> list[str]:
        """The proxies that are to be ended: where they cannot be, their whole node is."""
        ended = [n for n in (*self.gone, *self.restart) if n not in self.idle]
        return [n for n in ended if n.startswith(PROXY)]

    def order(self, side: Side) -> dict[str, Any]:
        """What the agent's ``dvsup up`` is told."""
        return {
            "side": asked(side),
            "files": self.files,
            "restart": self.restart,
            "gone": self.gone,
            "unbind": self.unbind,
            "reinit": self.reinit,
            "kind": self.kind,
        }


def change(lab: Lab, side: Side, view: View) -> Change:
    """Compare one side's own part: scripts, DVS, DC, proxies, stale endpoints."""
    out = Change(kind=view["kind"] or "own")
    say = out.reasons.append
    name, files = side["name"], files_of(side, out.kind)
    fresh = not any(path in view["hashes"] for path in files)
    for path, text in files.items():
        found = view["hashes"].get(path)
        if found == digest(text):
            continue
        out.files[path] = text
        if not fresh:
            say(f"{name} {path}: write, it {'differs' if found else 'is missing'}")
        if found and (service := _service_of(side, path)):
            out.restart.append(service)
    if fresh and files:
        say(f"{name}: write the DVS's scripts and services, {len(files)} files")
    _strays(side, view, files, out)
    _dvs(side, view, out)
    if not out.reinit:
        _proxies(side, view, fresh, out)
        _stale(lab, side, view, out)
    out.idle = {n for n in (*out.gone, *out.restart) if not _stands(view, n)}
    return out


def _stands(view: View, service: str) -> bool:
    """Whether a service runs, or its proxy has a slot in the DVS: one that died keeps its own."""
    rows = dvstables.proxies(view["files"].get("proxies/info", "")).values()
    slots = {f"{PROXY}{row['name']}" for row in rows if row["flags"]}
    found = view["services"].get(service)
    return service in slots or found is None or bool(found["up"])


def _service_of(side: Side, path: str) -> str | None:
    return next((n for n in side["services"] if path == f"{side['folder']}/{n}/run"), None)


def _strays(side: Side, view: View, files: dict[str, str], out: Change) -> None:
    """Services of peers that left the lab."""
    prefix = f"{side['folder']}/"
    for path in sorted(view["hashes"]):
        parts = path.removeprefix(prefix).split("/")
        if path.startswith(prefix) and len(parts) == 2 and path not in files:
            out.gone.append(parts[0])
            out.reasons.append(f"{side['name']}: end {parts[0]}, it is no longer wanted")


def _dvs(side: Side, view: View, out: Change) -> None:
    name = side["name"]
    found = dvstables.info(view["files"].get("info", ""))
    if "nodeid" not in found:
        out.reasons.append(f"{name}: initialise the DVS, {side['state']}/info is not there")
    else:
        faults = differences(side, found)
        then = view.get("init")
        # Of a run of an older umlaan nobody knows how it was initialised.
        if not faults and then not in (None, side["init"]):
            faults = [f"it was by: {then}; wanted: {side['init']}"]
        out.reinit = bool(faults)
        out.reasons += [f"{name}: initialise the DVS again, {text}" for text in faults]
    wanted = {str(dc["dcid"]): dc["made"] for dc in side["dcs"]}
    for number, dc in view["dcs"].items():
        if dc["fault"]:
            out.reasons.append(f"{name}: make DC{number}, {dc['fault']}")
        elif dc.get("made") not in (None, wanted[number]):
            # A DC takes nothing else once it is made, and ends with all that runs in it.
            out.reinit = True
            out.reasons.append(
                f"{name}: make DC{number} again, it was by: {dc['made']}; wanted: {wanted[number]}"
            )


def differences(side: Side, found: dict[str, str]) -> list[str]:
    """What an initialised DVS has otherwise than wanted; the debug level is read as hexadecimal."""
    out = []
    wanted = {"nodeid": str(side["number"]), "name": side["cluster"]}
    for key, value in wanted.items():
        if key in found and found[key] != value:
            out.append(f"{key} {found[key]} → {value}")
    try:
        debug = int(found["dbglvl"], 16)
    except (KeyError, ValueError):
        return out
    if debug != side["debug"]:
        out.append(f"debug level {debug} → {side['debug']}")
    return out


def _proxies(side: Side, view: View, fresh: bool, out: Change) -> None:
    found = dvstables.proxies(view["files"].get("proxies/info", ""))
    for service in side["services"]:
        row = view["services"].get(service)
        if (row is None or not row["up"]) and service not in out.restart and not fresh:
            said = f", {row['said']}" if row and row.get("said") else ""
            out.reasons.append(f"{side['name']}: start {service}, it does not run{said}")
        elif row and row.get("state") == "T":
            out.restart.append(service)
            out.reasons.append(f"{side['name']}: restart {service}, its process is stopped")
    for peer in side["peers"]:
        row = view["services"].get(peer["service"])
        flags = found.get(peer["number"], {"flags": 0})["flags"]
        if row and row["up"] and not flags & 1 and not out.reasons:
            out.reasons.append(f"{side['name']}: await the proxy to {peer['name']}, not bound yet")


def _stale(lab: Lab, side: Side, view: View, out: Change) -> None:
    """Endpoints whose program is gone: an aborted test left them, the next one would fail."""
    for dc in side["dcs"]:
        dcid = dc["dcid"]
        for row in stale(side, view, dcid):
            command = unbind_command(lab, side["number"], dcid, row["endpoint"])
            out.unbind.append([dcid, row["endpoint"], command])
            out.reasons.append(
                f"{side['name']}: unbind endpoint {row['endpoint']} ({row['name']}) of DC{dcid}, "
                f"its process {row['pid']} is gone"
            )


def stale(side: Side, view: View, dcid: int) -> list[dict[str, Any]]:
    """The local endpoints of a DC whose process no longer lives."""
    alive = set(view["pids"])
    rows = dvstables.procs(view["files"].get(f"DC{dcid}/procs", ""))
    return [
        r for r in rows if r["node"] == side["number"] and r["pid"] > 0 and r["pid"] not in alive
    ]


@dataclass
class Joining:
    """Pairs to be waited for, and why."""

    reasons: list[str] = field(default_factory=list)
    pairs: list[list[Any]] = field(default_factory=list)
    sides: list[Side] = field(default_factory=list)


def joining(side: Side, others: dict[str, Side], views: dict[str, View]) -> Joining:
    """The pairs of a side that one of both sides does not count as joined."""
    out = Joining()
    names = {side["name"]}
    for peer in side["peers"]:
        other = others.get(peer["name"])
        if other is None:
            continue
        for one, number, name in (
            (side["name"], peer["number"], peer["name"]),
            (peer["name"], side["number"], side["name"]),
        ):
            files = views.get(one, {"files": {}})["files"]
            faults = dvstables.unjoined(files, number, peer["dcids"])
            if faults:
                out.reasons.append(f"{one} ↔ {name}: join them, {one} says {'; '.join(faults)}")
                names.add(peer["name"])
        if peer["name"] in names:
            out.pairs.append([side["name"], peer["number"], peer["name"], peer["dcids"]])
            out.pairs.append([peer["name"], side["number"], side["name"], peer["dcids"]])
    everyone = {side["name"]: side, **others}
    out.sides = [light(everyone[name]) for name in sorted(names)] if out.reasons else []
    return out


def standing(side: Side, view: View) -> list[str]:
    """What of a lab host's side is to be taken away; a DVS without an end of its own stays."""
    name = side["name"]
    out = [f"{name}: end {service}" for service, row in view["services"].items() if row["up"]]
    out += [
        f"{name}: end DC{n} (init {dc['pid']})"
        for n, dc in view["dcs"].items()
        if dc["pid"] and not dc["fault"]
    ]
    if side["init_end"] and "info" in view["files"]:
        out.append(f"{name}: end the DVS, {side['state']}")
    if view["hashes"]:
        out.append(f"{name}: remove {len(view['hashes'])} scripts and units of the DVS")
    return out
