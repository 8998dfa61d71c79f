"""A lab host over ssh: the run, every verb and the measurements through a real sshd on loopback.

Nothing of the checkout is used there but the agent's zip; the tests run in order.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab
from tests.e2e.sshd import ADDRESS, serving
from umlaan.plan import lablock

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module", autouse=True)
def sshd(lab: Lab) -> Iterator[None]:
    """An sshd of this module's own, with keys of its own; the lab host is reached by it alone."""
    try:
        with serving(lab.folder / "sshd") as data:
            lab.node0 = (ADDRESS, data)
            lab.data["kernel"] = "ready:package:user-mode-linux"
            yield
            assert lab.destroy().verdict == "absent"
    finally:
        lab.node0 = "@local"


def test_the_first_run_and_the_second(lab: Lab) -> None:
    result = lab.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    again = lab.deploy()
    assert (again.code, again.changed, again.verdict) == (0, 0, "up"), again.output


def test_status_and_exec(lab: Lab) -> None:
    result = lab.umlaan("status", "--json")
    found = json.loads(result.stdout)
    assert (result.code, found["verdict"]) == (0, "converged"), result.output
    assert found["hosts"][0]["name"] == "127.0.0.1"
    assert lab.umlaan("status", "--drift").code == 0
    assert lab.umlaan("exec", "node1", "--", "sh", "-c", "exit 7").code == 7
    result = lab.umlaan("exec", "node1", "--", "printf", "%s|", "a b", "$HOME", "*")
    assert result.stdout == "a b|$HOME|*|", result.output
    assert lab.umlaan("exec", "node1", "--", "cat", typed="over there\n").stdout == "over there\n"
    assert lab.umlaan("ssh", "node1", "--", "uname", "-n").stdout == "node1\n"


def test_console_logs_and_mconsole(lab: Lab) -> None:
    result = lab.umlaan("console", "node1", "-n", "3", typed="echo typed here\r")
    assert "typed here" in result.stdout, result.output
    assert "Linux version" in lab.umlaan("logs", "node1", "-n", "400").stdout
    assert "connected" in lab.umlaan("logs", "proxy").stdout
    assert lab.umlaan("mconsole", "node1", "version").stdout.startswith("Linux node1 ")


def test_graph_plan_and_doctor(lab: Lab) -> None:
    drawn = lab.folder / "lab.mmd"
    assert lab.umlaan("graph", "-o", str(drawn)).code == 0
    assert "192.168.1.101" in drawn.read_text()
    assert "nothing to do" in lab.umlaan("plan").stdout
    assert json.loads(lab.umlaan("doctor", "--json").stdout)["machines"].keys() == {"127.0.0.1"}


def test_a_file_both_ways_and_a_snapshot(lab: Lab, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "sent").write_bytes(content)
    story = tmp_path / "story.py"
    story.write_text(
        "from pyinfra.operations import files\n"
        f"files.put(name='put', src='{tmp_path}/sent', dest='/root/sent')\n"
        f"files.get(name='get', src='/root/sent', dest='{tmp_path}/back')\n"
    )
    result = lab.pyinfra(str(story), options=("-y", "--limit", "@uml/node1"))
    assert result.code == 0, result.output
    assert (tmp_path / "back").read_bytes() == content
    assert lab.umlaan("snapshot", "node1", "one").code == 0
    assert "one" in lab.umlaan("snapshot").stdout
    assert lab.umlaan("snapshot", "node1", "one", "--delete").code == 0


def test_measured_and_reported(lab: Lab, tmp_path: Path) -> None:
    ledger, page = tmp_path / "ledger.jsonl", tmp_path / "report.html"
    words = ("--quick", "-t", "message", "-t", "ping", "--ledger", str(ledger))
    result = lab.umlaan("measure", *words)
    assert result.code == 0, result.output
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert rows and all(row["figures"] for row in rows), result.output
    assert lab.umlaan("report", str(ledger), "-o", str(page)).code == 0
    assert page.stat().st_size > 10_000


def test_an_unreachable_lab_host_is_one_message(lab: Lab) -> None:
    kept = lab.node0
    assert isinstance(kept, tuple)
    lab.node0 = (kept[0], {**kept[1], "ssh_port": 9})
    try:
        for verb in ("status", "plan"):
            result = lab.umlaan(verb)
            assert result.code == 1 and "127.0.0.1" in result.output, result.output
            assert "Traceback" not in result.output
        assert lab.deploy().code != 0
    finally:
        lab.node0 = kept


def test_a_lab_that_another_run_holds_is_one_message(lab: Lab) -> None:
    words = [sys.executable, "-S", "-m", "umlaan.agent", *lablock.words(lab.name, "somebody")]
    held = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert held.stdin and held.stdout
    try:
        assert held.stdout.readline() == "locked\n"
        result = lab.deploy()
        assert result.code != 0 and f"at work on {ADDRESS}: " in result.output, result.output
        assert "Traceback" not in result.output, result.output
    finally:
        held.stdin.close()
        held.wait(30)


def test_down_and_destroy_over_ssh(lab: Lab) -> None:
    assert lab.umlaan("down").verdict == "down"
    assert lab.umlaan("destroy", "--yes").verdict == "absent"
    assert not lab.state_dir.exists()
