"""Measuring a live default lab: every test a figure, a guest that dies a failed row, no drift."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time

import jsonschema
import pytest

from tests.e2e.lab import REPO, Lab
from umlaan.agent import proc
from umlaan.measure import ledger

pytestmark = pytest.mark.timeout(900)
SMALL = {
    "measure.repeats": "2",
    "measure.warmup": "0",
    "measure.message_count": "20",
    "measure.copy_count": "5",
    "measure.file_size": "3000001",
    "measure.ping_count": "5",
    "measure.timeout": "60",
}


@pytest.fixture(scope="module")
def up(lab: Lab) -> Lab:
    lab.host_data = {}  # the default: each node in DC 0
    lab.data.update(SMALL)
    result = lab.deploy()
    assert (result.verdict, result.code) == ("up", 0), result.output
    return lab


def umlaan(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        lab.umlaan_words(*words),
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "COLUMNS": "160"},
    )


def test_the_plan_runs_nothing(up: Lab) -> None:
    path = up.folder / "none.jsonl"
    done = umlaan(up, "measure", "--plan", "--ledger", str(path))
    assert done.returncode == 0, done.stderr
    assert "copy 64 KiB × 5, node1 → node0" in done.stdout
    assert "scp-get, node1 → node0: the lab host offers" in done.stderr
    assert not path.exists()


def test_every_test_between_host_and_guest_is_a_figure(up: Lab) -> None:
    path = up.folder / "ledger.jsonl"
    done = umlaan(up, "measure", "--json", "--ledger", str(path))
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    for row in printed:
        jsonschema.validate(row, ledger.schema())
    rows = ledger.read(path).rows
    assert len(rows) == len(printed) == 2 * (1 + 1 + 6 + 4) + 2
    assert {row.test for row in rows} == {
        *("ping", "message", "copy", "m3ftp-get", "m3ftp-put", "scp-get", "scp-put")
    }
    for row in rows:
        assert row.verdict == "ok", row.reason
        guest = row.server if row.server.place == "uml" else row.client
        assert guest.kernel.sha256 and guest.kernel.config_sha256 and guest.dvs_sha256
        assert row.way.transport in ("tuntap", "vector")
        assert row.way.mtu == 1500
        assert row.sample


def test_measuring_is_no_drift_and_leaves_nothing(up: Lab) -> None:
    again = up.deploy()
    assert (again.changed, again.verdict) == (0, "up"), again.output
    left = up.exec("@uml/node1", "ls -d /tmp/umlaan-measure.* /usr/src/dvs/*/*/*/umlaan-*")
    assert "No such file" in left.output
    assert not list(up.state_dir.glob("dvs/ioctl/dvk-proxies/test/m3ftp/umlaan-*"))


def test_the_deploy_file_measures_too(up: Lab) -> None:
    path = up.folder / "task.jsonl"
    few = '["ping", "message", "m3ftp-put"]'
    up.data.update({"measure.ledger": str(path), "measure.repeats": "1", "measure.tests": few})
    result = up.pyinfra("tasks/measure.py")
    assert (result.changed, result.verdict, result.code) == (0, "up", 0), result.output
    assert {row.verdict for row in ledger.read(path).rows} == {"ok"}
    assert "8 results" in result.output
    del up.data["measure.tests"]


def test_while_it_measures_no_other_run_begins(up: Lab) -> None:
    path = up.folder / "locked.jsonl"
    results: list[subprocess.CompletedProcess[str]] = []
    words = ("measure", "-t", "message", "--data", "measure.message_count=300", "--repeats", "9")
    thread = threading.Thread(
        target=lambda: results.append(umlaan(up, *words, "--ledger", str(path)))
    )
    thread.start()
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    try:
        refused = up.deploy()
        assert refused.code != 0
        held = r"is held by umlaan measure, \S+ pid \d+ since "
        assert re.search(held, refused.output), refused.output
    finally:
        # It holds the lab: the next test would wait for it.
        thread.join()
    assert results[0].returncode == 0, results[0].stderr


def of_lab(lab: Lab, pid: int) -> list[str]:
    """A process's command line, where it works in the lab's folder."""
    try:
        mine = os.readlink(f"/proc/{pid}/cwd").startswith(str(lab.state_dir))
    except OSError:
        return []
    return proc.cmdline(pid) if mine else []


def test_a_guest_killed_while_it_is_measured_is_a_failed_row(up: Lab) -> None:
    path = up.folder / "killed.jsonl"
    record = json.loads((up.state_dir / "nodes/node1/launch.json").read_text())
    results: list[subprocess.CompletedProcess[str]] = []
    words = ("measure", "-t", "ping", "-t", "message", "--data", "measure.message_count=1000000")
    thread = threading.Thread(
        target=lambda: results.append(umlaan(up, *words, "--ledger", str(path)))
    )
    thread.start()
    deadline = time.monotonic() + 120
    # Not before its message test has begun on this side.
    while not any(word.startswith("./loop_") for pid in proc.pids() for word in of_lab(up, pid)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(record["group"], 9) if record.get("group") else os.kill(record["pid"], 9)
    thread.join()
    rows = ledger.read(path).rows
    assert results[0].returncode == 1, results[0].stderr
    assert rows[0].verdict == "ok"
    failed = [row for row in rows if row.test == "message"]
    assert [row.verdict for row in failed] == ["failed", "failed"]
    assert all(row.figures is None and row.reason for row in failed)
    down = umlaan(up, "measure", "-t", "ping", "--ledger", str(path))
    assert down.returncode == 1
    assert "two nodes or more must be up" in down.stderr
    repaired = up.deploy()
    assert repaired.verdict == "up", repaired.output
