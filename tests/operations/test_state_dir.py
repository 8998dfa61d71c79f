"""operations.state_dir: destroy's last step."""

from __future__ import annotations

import json

from tests.operations.support import commands_of
from umlaan.operations import state_dir


def test_nothing_left_nothing_is_done() -> None:
    assert commands_of(state_dir.removed, responses={"remove list": "[]"}) == []


def test_what_is_there_is_named_and_removed() -> None:
    reasons: list[tuple[str, str]] = []
    said = {"remove list": '["nodes", "ssh"]'}
    commands = commands_of(state_dir.removed, responses=said, reasons=reasons)
    spec = json.dumps({"state_dir": "/var/lib/umlaan/umlaan"})
    assert commands == [f"umlaan-agent remove do '{spec}'"]
    assert reasons == [
        ("@fake/lab", "state folder /var/lib/umlaan/umlaan: remove nodes, ssh"),
    ]
