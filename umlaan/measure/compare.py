"""Which rows a report shows, and how two ledgers or two kernels differ. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from umlaan.measure import stats
from umlaan.measure.cases import described
from umlaan.measure.ledger import LedgerError, Parameters, Reading, Row
from umlaan.measure.reference import Reference, reference
from umlaan.model.measure import ALL_TESTS

SAMPLE = (
    "The programs are of umlaan's sample tree: plain TCP, no DVK, no proxy between. These figures "
    "say something about the machines and the network, nothing about the DVS; the published ones "
    "are the DVS's."
)


@dataclass(frozen=True)
class Key:
    """What makes two rows the same measurement: test, direction and parameters."""

    test: str
    client: str
    server: str
    parameters: Parameters

    @classmethod
    def of(cls, row: Row) -> Key:
        """The key of a row."""
        return cls(row.test, row.client.name, row.server.name, row.parameters)

    @property
    def direction(self) -> str:
        """client → server."""
        return f"{self.client} → {self.server}"

    @property
    def what(self) -> str:
        """The parameters as words."""
        return described(self.parameters)

    def order(self) -> tuple[int, int, int, int, str]:
        """As a reader expects: tests as the procedure has them, then size, then direction."""
        test = ALL_TESTS.index(self.test) if self.test in ALL_TESTS else len(ALL_TESTS)
        p = self.parameters
        return (test, p.buffer or 0, p.size or 0, p.count or 0, self.direction)


@dataclass(frozen=True)
class Difference:
    """How the second side's median stands to the first's."""

    ratio: float
    outside: bool | None
    faster: bool

    @property
    def words(self) -> str:
        """One word or two for a table."""
        if self.outside is None:
            return "too few repeats"
        if not self.outside:
            return "within the spread"
        return "faster" if self.faster else "slower"


@dataclass(frozen=True)
class Entry:
    """One measurement: its row on each side (None where it was not measured)."""

    key: Key
    rows: tuple[Row | None, ...]

    @property
    def row(self) -> Row:
        """The first side's row, or the only one."""
        return next(row for row in self.rows if row is not None)

    @property
    def reference(self) -> Reference | None:
        """The published figure beside it."""
        return reference(self.row)

    @property
    def difference(self) -> Difference | None:
        """Second side against first; None unless both have figures."""
        if len(self.rows) < 2:
            return None
        ours, theirs = self.rows[0], self.rows[1]
        if not ours or not theirs or not ours.figures or not theirs.figures:
            return None
        ratio = theirs.figures.median / ours.figures.median
        outside = stats.outside_spread(ours.figures.values, theirs.figures.values)
        return Difference(ratio, outside, ratio < 1 if ours.unit == "ms/exchange" else ratio > 1)


@dataclass(frozen=True)
class Side:
    """One ledger, or what one ledger says of one kernel."""

    label: str
    rows: tuple[Row, ...]


@dataclass
class Report:
    """What a page or a table shows: the newest row of each measurement on each side."""

    sides: tuple[Side, ...]
    entries: list[Entry]
    left_out: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """Every row that is shown."""
        return [row for entry in self.entries for row in entry.rows if row]

    @property
    def notices(self) -> list[str]:
        """What a reader must know before the figures."""
        sample = any(row.sample for row in self.rows)
        return [SAMPLE] * sample + self.left_out

    @property
    def failed(self) -> list[Row]:
        """The shown rows that are no figure."""
        return [row for row in self.rows if row.verdict == "failed"]

    @property
    def span(self) -> tuple[datetime, datetime]:
        """When the shown rows were measured: first, last."""
        times = [row.time for row in self.rows]
        return min(times), max(times)


def kernels(rows: Sequence[Row]) -> list[str]:
    """The kernels measured, in the order in which they first appear in time."""
    return list(dict.fromkeys(row.kernel for row in sorted(rows, key=lambda row: row.time)))


def report(readings: Sequence[Reading], between: Sequence[str] = ()) -> Report:
    """One ledger, two ledgers, or one ledger with two kernels (each a part of a kernel's label).

    LedgerError where a ledger is empty, or a kernel is none or several of those measured.
    """
    for reading in readings:
        if not reading.rows:
            raise LedgerError(f"{reading.path}: no results in it")
    left_out = [line for reading in readings for line in reading.left_out]
    if between:
        if len(readings) != 1:
            raise LedgerError("two kernels are compared within one ledger")
        rows = readings[0].rows
        labels = [_kernel(word, rows) for word in between]
        sides = tuple(Side(x, tuple(r for r in rows if r.kernel == x)) for x in labels)
    else:
        names = _short([reading.path for reading in readings])
        sides = tuple(Side(n, tuple(r.rows)) for n, r in zip(names, readings, strict=True))
    newest = [_newest(side.rows) for side in sides]
    keys = sorted({key for rows in newest for key in rows}, key=Key.order)
    entries = [Entry(key, tuple(rows.get(key) for rows in newest)) for key in keys]
    return Report(sides, entries, left_out)


def as_json(made: Report) -> dict[str, Any]:
    """A report for scripts: each measurement with the rows of its sides and their difference."""
    entries = []
    for entry in made.entries:
        difference = entry.difference
        known = entry.reference
        entries.append(
            {
                "test": entry.key.test,
                "client": entry.key.client,
                "server": entry.key.server,
                "rows": [
                    row.model_dump(mode="json", exclude_none=True) if row else None
                    for row in entry.rows
                ],
                "ratio": difference.ratio if difference else None,
                "outside_spread": difference.outside if difference else None,
                "difference": difference.words if difference else None,
                "published": known.value if known else None,
            }
        )
    sides = [side.label for side in made.sides]
    return {"sides": sides, "entries": entries, "left_out": made.left_out}


def _kernel(word: str, rows: Sequence[Row]) -> str:
    known = kernels(rows)
    found = [label for label in known if word == label] or [x for x in known if word in x]
    if len(found) == 1:
        return found[0]
    what = "no kernel measured here" if not found else "more than one kernel"
    raise LedgerError(f"{word!r}: {what}; the ledger has: {', '.join(known)}")


def _newest(rows: Sequence[Row]) -> dict[Key, Row]:
    return {Key.of(row): row for row in sorted(rows, key=lambda row: row.time)}


def _short(paths: list[str]) -> list[str]:
    """File names alone where they differ, else whole paths."""
    names = [path.rsplit("/", 1)[-1] for path in paths]
    return names if len(set(names)) == len(names) else paths
