"""A look at a lab that is not there yet leaves nothing: the next deploy would refuse the folder."""

from __future__ import annotations

import os
from pathlib import Path

from umlaan.agent import sharedlook


def test_a_plan_makes_no_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "state/run/looks")
    assert sharedlook.shared(folder, "node1", "?", lambda: {"answers": False}, 1.0) == {
        "answers": False
    }
    assert os.listdir(tmp_path) == []
