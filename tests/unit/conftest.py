"""A node whose UML is a stand-in: fake_uml.py."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.uml import FAKE
from umlaan.agent import cgroup, node


@pytest.fixture
def order(tmp_path: Path) -> Iterator[dict[str, Any]]:
    directory = tmp_path / "node9"
    directory.mkdir()
    root = directory / "root.ext4"
    root.write_bytes(b"\0" * 4096)
    words = ["umid=node9", f"uml_dir={directory}/uml/", f"ubda={root}"]
    made = {
        "name": "node9",
        "dir": str(directory),
        "umid": "node9",
        "root": str(root),
        "namespace": None,
        "address": "127.0.0.1",
        "argv": [sys.executable, FAKE, *words],
        "kernel_sha256": "a" * 64,
        "mem": 0,
        "deadline": 1,
    }
    yield made
    for one in node.members(made):
        os.kill(one.pid, signal.SIGKILL)
    cgroup.leave(made)
