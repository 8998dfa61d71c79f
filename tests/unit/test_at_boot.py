"""What brings nodes back after a boot: notes, what is due, the agent beside the lab's state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.uml import REPOSITORY, agent
from umlaan.agent import atboot, node, patience, proc
from umlaan.agent.files import locked, read_json, write_json
from umlaan.agent.stop import ROUGH_S

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="locks roots under /run")


@pytest.fixture
def state_dir(order: dict[str, Any]) -> Path:
    """The lab's state folder; the order's node moves into it."""
    folder = Path(order["dir"]).parent / "state"
    (folder / "nodes").mkdir(parents=True)
    Path(order["dir"]).rename(folder / "nodes/node9")
    before, after = order["dir"], str(folder / "nodes/node9")
    order.update(json.loads(json.dumps(order).replace(before, after)))
    return folder


@pytest.fixture
def lab(state_dir: Path) -> str:
    """A lab's name of its own: its lock and mark stand in /run/umlaan."""
    name = f"atboot-{os.getpid()}-{state_dir.parent.name[-12:].strip('_')}"
    yield name
    for path in (atboot.done_path(name), atboot.lock_path(name)):
        Path(path).unlink(missing_ok=True)


def as_of_another_boot(order: dict[str, Any]) -> None:
    record = read_json(node.record_path(order["dir"]))
    write_json(node.record_path(order["dir"]), {**record, "boot_id": "another"})


def up(lab: str, state_dir: Path) -> str:
    done = agent("at-boot", "up", lab, str(state_dir))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def running(order: dict[str, Any]) -> bool:
    return bool(node.state(order)["running"])


def test_a_start_is_noted_and_a_stop_that_lasts_takes_it_away(order: dict[str, Any]) -> None:
    assert agent("node-start", order).returncode == 0
    assert node.state(order)["noted"] == order
    assert agent("node-stop", order).returncode == 0
    assert node.state(order)["noted"] == order, "a restart keeps it"
    assert agent("node-stop", {**order, "forget": True}).returncode == 0
    assert node.state(order)["noted"] is None


def test_what_was_up_before_the_boot_is_started_and_nothing_else(
    order: dict[str, Any],
    state_dir: Path,
    lab: str,
) -> None:
    assert agent("node-start", order).returncode == 0
    assert agent("node-stop", order).returncode == 0
    assert "started" not in up(lab, state_dir), "it ended in this very boot"
    assert not running(order)
    as_of_another_boot(order)
    assert "node9: started, pid" in up(lab, state_dir)
    assert running(order)
    assert os.path.exists(atboot.done_path(lab))
    record = node.read_record(order["dir"])
    assert record is not None and record["boot_id"] == proc.boot_id()
    assert record["argv"] == order["argv"]
    assert up(lab, state_dir) == "", "twice starts nothing twice"


def test_a_node_that_was_put_down_stays_down(
    order: dict[str, Any],
    state_dir: Path,
    lab: str,
) -> None:
    assert agent("node-start", order).returncode == 0
    assert agent("node-stop", {**order, "forget": True}).returncode == 0
    as_of_another_boot(order)
    assert up(lab, state_dir) == ""
    assert not running(order)


def test_the_units_end_stops_nodes_and_its_next_start_brings_them_back(
    order: dict[str, Any],
    state_dir: Path,
    lab: str,
) -> None:
    assert agent("node-start", order).returncode == 0
    up(lab, state_dir)
    done = agent("at-boot", "down", lab, str(state_dir))
    assert "node9: stopped by" in done.stdout, done.stdout + done.stderr
    assert not running(order) and not os.path.exists(atboot.done_path(lab))
    assert "node9: started, pid" in up(lab, state_dir)
    assert running(order)
    assert "resume" not in (node.read_record(order["dir"]) or {})


def test_within_a_run_the_unit_starts_nothing(
    order: dict[str, Any],
    state_dir: Path,
    lab: str,
) -> None:
    assert agent("node-start", order).returncode == 0
    assert agent("node-stop", order).returncode == 0
    as_of_another_boot(order)
    with locked(atboot.lock_path(lab), "a run"):
        assert "nothing started" in up(lab, state_dir)
    assert not running(order)
    assert os.path.exists(atboot.done_path(lab))


def test_a_root_that_never_comes_is_said_and_the_others_start(
    order: dict[str, Any],
    state_dir: Path,
    lab: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert agent("node-start", order).returncode == 0
    assert agent("node-stop", order).returncode == 0
    as_of_another_boot(order)
    other = {**order, "name": "node10", "umid": "node10", "root": "/dev/none"}
    other["dir"] = str(state_dir / "nodes/node10")
    atboot.note(other)
    write_json(node.record_path(other["dir"]), {"boot_id": "another", "argv": []})
    assert [each["name"] for each in atboot.noted(str(state_dir))] == ["node9", "node10"]
    monkeypatch.setattr(atboot, "ROOTS_S", 0.0)
    monkeypatch.setenv("PYTHONPATH", atboot.top())
    atboot.up(lab, str(state_dir))
    said = capfd.readouterr()
    assert "node9: started" in said.out
    assert "node10: not started: root /dev/none is not there" in said.err


def test_the_agent_beside_the_state_is_whole_and_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "at-boot/agent-old.zip", tmp_path / "at-boot/agent-new.zip"
    atboot.place(str(first))
    atboot.place(str(second))
    assert [path.name for path in second.parent.iterdir()] == ["agent-new.zip"]

    def by_zip(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", "-m", "umlaan.agent", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(second)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )

    third = tmp_path / "at-boot/agent-third.zip"
    data = second.read_bytes()
    done = by_zip("at-boot", "place", str(third))
    assert done.returncode == 0, done.stderr
    assert third.read_bytes() == data and not second.exists()
    assert len(atboot.key()) == 16


def test_a_run_waits_only_for_a_machine_that_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks: list[str] = []

    def starting() -> str:
        looks.append("look")
        if len(looks) == 3:
            Path(atboot.done_path("some")).touch()
        return "12 some.service start waiting"

    monkeypatch.setattr(atboot, "SYSTEMD", str(tmp_path))
    monkeypatch.setattr(atboot, "WANTS", str(tmp_path))
    monkeypatch.setattr(atboot, "done_path", lambda lab: str(tmp_path / f"{lab}.at-boot"))
    monkeypatch.setattr(atboot, "_starting", starting)
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    atboot.awaited("some")
    assert looks == [], "no unit, nothing to wait for"
    (tmp_path / atboot.unit("some")).touch()
    atboot.awaited("some")
    assert len(looks) == 3
    atboot.awaited("some")
    assert len(looks) == 3, "done in this boot"


def test_a_guest_that_boots_slowly_gets_longer_for_its_clean_end() -> None:
    unit = (Path(__file__).resolve().parents[2] / "templates/network/nodes.service.j2").read_text()
    limit = float(unit.partition("TimeoutStopSec=")[2].split()[0])
    waits = [atboot.stop_s({"deadline": seconds}) for seconds in (5, 90, 600, 3600)]
    assert waits == [60, 60, 100, 150] and waits[-1] + 3 * ROUGH_S + 60 < limit
    assert atboot.stop_s({}) == 60


_SCOPED = """
import sys
from umlaan.agent import atboot
atboot.SYSTEMD = "/"
print(atboot.in_scope({"name": "node9", "lab": "x"}, sys.argv[1:]))
"""


def test_without_a_scope_it_is_started_all_the_same_and_that_is_said(tmp_path: Path) -> None:
    run = tmp_path / "systemd-run"

    def in_scope(text: str) -> str:
        run.write_text(f"#!/bin/sh\n{text}\n")
        run.chmod(0o755)
        begins = "import os; os.write(int(os.environ['UMLAAN_SCOPED']), b'1')"
        done = subprocess.run(
            [sys.executable, "-c", _SCOPED, sys.executable, "-c", begins],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout + done.stderr

    said = in_scope("echo 'Failed to connect to bus: Connection timed out' >&2; exit 1")
    assert "node9: not in a scope of its own, systemd-run: Failed to connect to bus" in said
    assert said.endswith("None\n")
    assert in_scope('while [ "$1" != -- ]; do shift; done; shift; exec "$@"') == "0\n"
