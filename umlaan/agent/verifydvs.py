"""The DVS's part of verification: "up" only where the tables of both sides of a pair agree.

Node flag E, proxy flags 7, counters that move; then the procedure's short message loop and block
copy between the hub (node0, or the lowest number) and this node.
"""

from __future__ import annotations

from typing import Any

from umlaan.agent import dvslook, dvstables, exchange
from umlaan.agent.dvslook import Side, View
from umlaan.agent.files import locked
from umlaan.agent.patience import Wait

Check = dict[str, Any]
MOVE_S = 5.0
BUSY_S = 300.0


def check(what: str, ok: bool, host: str = "", guest: str = "", detail: str = "") -> Check:
    """One row of the table."""
    return {"what": what, "ok": ok, "host": host, "guest": guest, "detail": detail}


class Pairs:
    """One node's pairs: with the hub, which is looked at anew, and with others as just seen."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.sides: dict[str, Side] = spec["sides"]
        self.own: Side = self.sides[spec["own"]]
        self.hub: Side | None = self.sides.get(spec["hub"] or "")
        self.before: dict[str, View] = spec["before"]
        self.slow = dvslook.slow(*self.sides.values())
        self.now: dict[str, View] = {}
        self.exchanged = False
        self.exchanges: list[Check] = []

    def fresh(self, tables: str | None = None) -> None:
        """Look at the hub and this node anew; tables are this node's where they were just read."""
        asked = [self.hub] if self.hub else []
        if tables is None:
            asked.append(self.own)
        self.now = {**self.before, **dvslook.looks(asked)}
        if tables is not None:
            view = dvslook.parse(self.own, tables)
            self.now[self.own["name"]] = dvslook.look(self.own) if dvslook.blank(view) else view

    def first(self) -> None:
        """What was seen before the exchanges: as this run saw it, else by a look now."""
        missing = [side for name, side in self.sides.items() if name not in self.before]
        self.before = {**self.before, **dvslook.looks(missing)}

    def exchange_all(self) -> None:
        """See what is, then make the short tests: the counters must have moved afterwards."""
        self.first()
        self.exchanges = self.tests()

    def checks(self, tables: str) -> list[Check]:
        """All rows of this node's DVS, once its tables were read again."""
        self.fresh(tables)
        rows = [self.dvs(), *self.dcs()]
        rows += [self.pair(pair) for pair in self.spec["pairs"]]
        return rows + self.exchanges

    def dvs(self) -> Check:
        """Initialised on both sides, as the same cluster."""
        rows = [
            dvstables.info(self.now[side["name"]]["files"].get("info", ""))
            for side in (self.hub, self.own)
            if side
        ]
        said = [f"node{r.get('nodeid', '?')} of {r.get('name', '?')}" for r in rows]
        ok = all("nodeid" in row for row in rows) and len({r.get("name") for r in rows}) == 1
        ok = ok and rows[-1].get("nodeid") == str(self.own["number"])
        return check("DVS", ok, said[0] if self.hub else "", said[-1])

    def dcs(self) -> list[Check]:
        """Each DC of this node: its init lives on both sides."""
        out = []
        for number in self.now[self.own["name"]]["dcs"]:
            words, ok = [], True
            for side in (self.hub, self.own):
                dc = self.now[side["name"]]["dcs"].get(number) if side else None
                fault = dc and dc["fault"]
                ok = ok and not fault
                words.append("" if dc is None else fault or _init(dc))
            out.append(check(f"DC{number}", ok, *words))
        return out

    def pair(self, pair: dict[str, Any]) -> Check:
        """One pair: what each side says of the other, and whether its counters move."""
        own, name = self.own["name"], pair["other"]
        what = f"{name} ↔ {own}"
        other = self.now.get(name)
        if other is None or not other["answers"]:
            error = other["error"] if other else "not looked at"
            return check(what, False, "no answer", "", f"{name}: {error}")
        here = dvstables.unjoined(self.now[own]["files"], pair["number"], pair["dcids"])
        there = dvstables.unjoined(other["files"], self.own["number"], pair["dcids"])
        faults = [f"{own} says: {f}" for f in here] + [f"{name} says: {f}" for f in there]
        cells: dict[str, list[str]] = {}
        if not faults and self.must_move(name):
            faults, cells = self.still(pair)
        row = check(
            what,
            not faults,
            _said(self.now[name]["files"], self.own["number"]),
            _said(self.now[own]["files"], pair["number"]),
            "; ".join(faults),
        )
        if faults:
            row["tables"] = [
                {
                    "name": one,
                    "peer": peer,
                    "files": self.now[one]["files"],
                    "dcids": pair["dcids"],
                    "still": cells.get(one, []),
                }
                for one, peer in ((name, self.own["number"]), (own, pair["number"]))
            ]
        return row

    def must_move(self, name: str) -> bool:
        """True where something was sent meanwhile: an exchange, or the proxies' own beats."""
        with_hub = self.hub is not None and name == self.hub["name"]
        return bool(self.spec["beats"]) or (self.exchanged and with_hub)

    def still(self, pair: dict[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
        """The counters that do not move, asked again while more of them do; and {side: which}."""
        waiting = Wait(MOVE_S * self.slow)
        while True:
            faults, cells = self._still(pair)
            if not faults or not waiting.goes_on(frozenset(faults)):
                return faults, cells
            waiting.pause(least=0.2)
            self.fresh()

    def _still(self, pair: dict[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
        out = []
        cells: dict[str, list[str]] = {}
        asked = [(self.own["name"], pair["number"])]
        if self.hub and pair["other"] == self.hub["name"]:
            asked.append((pair["other"], self.own["number"]))
        for name, peer in asked:
            old = dvstables.nodes(self.before[name]["files"].get("nodes", "")).get(peer)
            new = dvstables.nodes(self.now[name]["files"].get("nodes", "")).get(peer)
            for key in ("sent", "received"):
                if old and new and old[key] == new[key]:
                    out.append(f"{name} says: its counter of packets {key} stays at {new[key]}")
                    cells.setdefault(name, []).append(key)
        return out, cells

    def joined(self, pair: dict[str, Any]) -> bool:
        """True once both sides of the pair with the hub say so; what this run saw may be old."""
        assert self.hub is not None
        sides = [(self.own, self.hub["number"]), (self.hub, self.own["number"])]
        dcids = pair["dcids"]
        waiting = Wait(MOVE_S * self.slow)
        while True:
            faults = tuple(
                tuple(dvstables.unjoined(self.before[side["name"]].get("files", {}), peer, dcids))
                for side, peer in sides
            )
            if not any(faults):
                return True
            if not waiting.goes_on(faults):
                return False
            self.before = {**self.before, **dvslook.looks([self.own, self.hub])}
            waiting.pause(least=0.1)

    def tests(self) -> list[Check]:
        """The short tests with the hub; none where the pair is not even joined."""
        tests, none = self.spec["tests"], self.spec["no_tests"]
        if self.hub is None or none:
            return [check("message loop, block copy", True, "not made", "", none)] if none else []
        pair = next((p for p in self.spec["pairs"] if p["other"] == self.hub["name"]), None)
        if pair and not self.joined(pair):
            return [check("message loop, block copy", False, "not made", "", "not joined")]
        rows = []
        try:
            # All nodes' tests use the same endpoints of the hub.
            with locked(self.spec["lock"], f"verify of {self.own['name']}", wait=BUSY_S):
                rows = [self.exchange(test) for test in tests]
        except TimeoutError as error:
            rows.append(check("message loop, block copy", False, "not made", "", str(error)))
        return rows

    def exchange(self, test: dict[str, Any]) -> Check:
        """One test as a row."""
        freed: list[str] = []
        try:
            if self.exchanged is False:
                for name in (test["server"], test["client"]):
                    view = (
                        self.before[name]
                        if name == self.own["name"]
                        else dvslook.look(self.sides[name])
                    )
                    freed += exchange.clear(self.sides[name], view, test)
            self.exchanged = True
            server, client = exchange.exchange(self.sides, test)
        except exchange.Refused as fault:
            return check(test["what"], False, "server", "failed", str(fault))
        return check(test["what"], True, server, client, "; ".join(freed))


def _init(dc: dict[str, Any]) -> str:
    return f"init {dc['pid']}" if dc["pid"] else "there"


def _said(files: dict[str, str], peer: int) -> str:
    node = dvstables.nodes(files.get("nodes", "")).get(peer)
    proxy = dvstables.proxies(files.get("proxies/info", "")).get(peer)
    flags = f"{node['flags'] if node else '-'} {proxy['flags'] if proxy else '-'}"
    return f"{flags}, {node['sent']}/{node['received']}" if node else flags
