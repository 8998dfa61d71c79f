"""The agent's verbs as a test calls them, for a node whose UML is fake_uml.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FAKE = str(Path(__file__).with_name("fake_uml.py"))


def agent(verb: str, *words: Any, text: str | None = None) -> subprocess.CompletedProcess[str]:
    arguments = [w if isinstance(w, str) else json.dumps(w) for w in words]
    return subprocess.run(
        [sys.executable, "-S", "-m", "umlaan.agent", verb, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def state_of(order: dict[str, Any]) -> dict[str, Any]:
    done = agent("node-state", {"nodes": [order], "memory": True})
    assert done.returncode == 0, done.stderr
    row: dict[str, Any] = json.loads(done.stdout)["node9"]
    return row


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def typed(order: dict[str, Any], text: str) -> str:
    """What a person sees who attaches, types this and detaches."""
    done = agent("console", order["dir"], text=f"{text}\n")
    return done.stdout


def typed_last(order: dict[str, Any], text: str) -> str:
    """What a person sees who types what ends the guest, and stays attached until it has ended."""
    with subprocess.Popen(
        [sys.executable, "-S", "-m", "umlaan.agent", "console", order["dir"]],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
        return process.stdout.read()
