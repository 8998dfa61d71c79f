"""The benchmark's own arithmetic: aims, recaps, whose memory counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import Row, arguments
from bench.against import sums, tasks
from bench.lab import REPO, BenchLab
from bench.timing import Failed, Timed, own_memory, timed

RECAP = """\
PLAY RECAP *********
node0                      : ok=16   changed=0    unreachable=0    failed=0    skipped=0
node1                      : ok=9    changed=0    unreachable=0    failed=0    skipped=0
"""


@pytest.mark.parametrize(
    ("found", "at_least", "reached"),
    [(1.15, False, True), (1.16, False, False), (15.0, True, True), (14.9, True, False)],
)
def test_an_aim_is_reached_or_missed(found: float, at_least: bool, reached: bool) -> None:
    row = Row("x", "1 s", "2 s", found, 15.0 if at_least else 1.15, "×", at_least)
    assert row.reached is reached
    assert ("reached" in row.cells()[-1]) is reached


def test_a_playbooks_tasks_are_counted_over_its_hosts() -> None:
    assert tasks(Timed(1.0, RECAP, 0)) == 25


def test_sums_are_what_sha256sum_reads(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "sums").write_text(sums([tmp_path / "a"], tmp_path))
    words = ["sha256sum", "-c", "--quiet", "sums"]
    assert subprocess.run(words, cwd=tmp_path).returncode == 0
    (tmp_path / "a").write_text("two")
    assert subprocess.run(words, cwd=tmp_path, capture_output=True).returncode == 1


def test_only_umlaans_own_processes_count_as_its_memory() -> None:
    hold = "x = b'1' * 30_000_000; print('ready', flush=True); input()"
    for word, counts in (("umlaan.agent", True), ("cc1", False)):
        process = subprocess.Popen(
            [sys.executable, "-c", hold, word], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        held = own_memory(process.pid)
        process.communicate(b"\n")
        assert (held > 30_000_000) is counts and (counts or held == 0)


def test_a_step_that_fails_is_quoted() -> None:
    with pytest.raises(Failed, match="exit code 3\n    no such thing"):
        timed(["sh", "-c", "echo no such thing; exit 3"])


def test_its_lab_shares_nothing_with_the_users(tmp_path: Path) -> None:
    lab = BenchLab(tmp_path)
    made = lab.model()
    host = made.hosts[0]
    assert (host.state_dir, host.cache_dir) == (f"{tmp_path}/state", f"{tmp_path}/cache")
    assert host.network.namespace == "umlaan-bench" == made.name
    assert f"state_dir={tmp_path}/state" in lab.words and lab.repo == REPO


def test_the_parts_can_be_chosen() -> None:
    options = arguments(["--parts", "noop", "--ready", "--repeats", "3"])
    assert (options.parts, options.ready, options.repeats) == (["noop"], True, 3)


def test_processor_seconds_are_those_of_the_command() -> None:
    busy = timed([sys.executable, "-c", "import time\nwhile time.process_time() < 0.4: pass"])
    idle = timed(["sleep", "0.4"])
    assert busy.cpu >= 0.4 > idle.cpu
