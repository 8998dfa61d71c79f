"""The agent's verification of one node: what a guest that has just booted may still do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import verify

REFUSED = "ssh: connect to host 192.168.1.101 port 22: Connection refused"


def asked(tmp_path: Path, refusals: int) -> dict[str, Any]:
    """A view through an ssh that is refused so often, then runs the script here."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"#!/bin/sh\necho x >>{tmp_path}/calls\n"
        f"[ $(wc -l <{tmp_path}/calls) -gt {refusals} ] || {{ echo '{REFUSED}' >&2; exit 255; }}\n"
        'exec sh -c "$1"\n'
    )
    ssh.chmod(0o755)
    node0 = {"address": "127.0.0.1"}
    return verify.guest_view({"ssh": [str(ssh)], "node0": node0, "dvs": None, "pairs": None})


def test_an_sshd_that_starts_anew_is_waited_for(tmp_path: Path) -> None:
    view = asked(tmp_path, refusals=2)
    assert view["error"] == ""
    assert view["hostname"] == Path("/proc/sys/kernel/hostname").read_text().strip()


def test_one_that_stays_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "RESTART_S", 1.0)
    assert asked(tmp_path, refusals=99)["error"] == REFUSED
