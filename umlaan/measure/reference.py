"""Figures that the procedure itself and its authors' log give, as lines in the report.

They were measured in 2020 on other machines: a place to stand, not a like-for-like comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

from umlaan.measure.ledger import Parameters, Row
from umlaan.model.measure import TestName

PROCEDURE = "the procedure"
LOG = "the DVS's log"


@dataclass(frozen=True)
class Reference:
    """One published figure, in the unit of its test."""

    test: TestName
    value: float
    source: str
    detail: str
    parameters: Parameters = Parameters()

    def fits(self, row: Row) -> bool:
        """True where the row measures the same thing: what the reference states, it has too."""
        stated = self.parameters.model_dump(exclude_none=True)
        return self.test == row.test and all(
            getattr(row.parameters, name) == value for name, value in stated.items()
        )


REFERENCES: tuple[Reference, ...] = (
    Reference("ping", 0.196, PROCEDURE, "ping -c 3 node0"),
    Reference("message", 39.390963, LOG, "loop_r-s_server 1 1000, 8 August 2020"),
    Reference(
        "copy", 2.045810997, LOG, "100 blocks of 64 KiB, 8 August 2020", Parameters(size=65536)
    ),
    Reference(
        "m3ftp-get", 0.674578360, PROCEDURE, "vmlinux, 64 KiB buffer", Parameters(buffer=65536)
    ),
    Reference(
        "m3ftp-get", 1.682237536, PROCEDURE, "vmlinux, 1 MiB buffer", Parameters(buffer=1048576)
    ),
    Reference("m3ftp-put", 0.781798949, PROCEDURE, "file of 7.3 MB, buffer not stated"),
    Reference("scp-get", 6.288443900, PROCEDURE, "vmlinux"),
    Reference("scp-put", 6.288443900, PROCEDURE, "vmlinux, the other way"),
)


def reference(row: Row) -> Reference | None:
    """The published figure for what this row measures; None where there is none."""
    return next((known for known in REFERENCES if known.fits(row)), None)
