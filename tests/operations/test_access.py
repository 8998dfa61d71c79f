"""operations.access: keys are made once."""

from __future__ import annotations

from tests.operations.support import commands_of
from umlaan.operations import access

SPEC = (
    '\'{"dir": "/var/lib/umlaan/umlaan/ssh", "lab": "umlaan", '
    '"nodes": {"node1": "192.168.1.101"}}\''
)


def test_all_there_nothing_is_done() -> None:
    assert commands_of(access.keys, responses={"keys state": "[]"}) == []


def test_what_is_missing_is_named_and_made() -> None:
    reasons: list[tuple[str, str]] = []
    said = {"keys state": '["host key of node1", "known_hosts"]'}
    commands = commands_of(access.keys, responses=said, reasons=reasons)
    assert commands == [f"umlaan-agent keys make {SPEC}"]
    assert reasons == [("@fake/lab", "ssh keys: make host key of node1, known_hosts")]
