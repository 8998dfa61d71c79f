"""The DVS of a side taken down where the side does not answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import dvslook, dvsservices, dvsup


def test_a_side_that_does_not_answer_is_not_said_to_be_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that hangs is not an empty one: the DC may live, and its scripts must stay."""
    side: dict[str, Any] = {
        "name": "node0",
        "lab": "umlaan",
        "shell": None,
        "place": "host",
        "folder": str(tmp_path / "services"),
        "run": str(tmp_path / "run"),
        "state": "/proc/dvs",
        "services": ["dvs-join"],
        "dcs": [{"dcid": 0, "file": str(tmp_path / "DC0.txt"), "end": None}],
        "init_end": None,
    }
    (tmp_path / "services/dvs-join").mkdir(parents=True)
    (tmp_path / "DC0.txt").write_text("DC0=1\n")
    hung = (124, "", "node0: no answer in 20 s")
    monkeypatch.setattr(dvslook, "run_there", lambda *_: hung)
    with pytest.raises(dvsservices.NotUp, match="node0: no answer in 20 s"):
        dvsup.down({"side": side, "kind": "own"})
    assert (tmp_path / "services/dvs-join").exists() and (tmp_path / "DC0.txt").exists()
