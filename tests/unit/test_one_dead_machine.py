"""Two lab hosts of which one is dead: who takes part is locked, work on the other goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.uml import REPOSITORY
from umlaan import run
from umlaan.model.lab import HostData, build_lab

INVENTORY = """
node0 = ["@local", ("dead", {"ssh_hostname": "127.0.0.1", "ssh_port": 1,
    "network": {"address": "192.168.77.11/24", "namespace": "umlaan-dead"}})]
uml = [("@uml/node1", {"lab_host": "@local"}), ("@uml/node2", {"lab_host": "dead"})]
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes the lab's lock under /run")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "inventory.py").write_text(INVENTORY)
    (tmp_path / "group_data").mkdir()
    lab = f"dead{os.getpid()}"
    (tmp_path / "group_data/all.py").write_text(
        f"lab = {lab!r}\nstate_dir = {str(tmp_path / 'state')!r}\ndvs = None\n"
        f"network = {{'address': '192.168.77.10/24', 'namespace': 'umlaan-{lab}'}}\n"
    )
    return tmp_path


def pyinfra(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyinfra", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYINFRA_PROGRESS": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def limited(*names: str) -> list[str]:
    """The lab hosts that a run limited to these would lock."""
    lab = build_lab(
        [
            HostData("lab1", False),
            HostData("lab2", False, {"network": {"address": "192.168.1.11/24"}}),
            HostData("@uml/node1", True, {"lab_host": "lab1"}),
            HostData("@uml/node2", True, {"lab_host": "lab2"}),
        ]
    )
    state: Any = SimpleNamespace(limit_hosts=[SimpleNamespace(name=name) for name in names])
    return [host.name for host in run.taking_part(state, lab)]


def test_only_lab_hosts_that_take_part_are_locked() -> None:
    assert limited() == ["lab1", "lab2"]
    assert limited("lab1") == ["lab1"]
    assert limited("@uml/node2") == ["lab2"]
    assert limited("@uml/node1", "lab2") == ["lab1", "lab2"]
    assert limited("a-builder") == []


@needs_root
def test_a_dead_machine_stops_no_work_on_another(project: Path) -> None:
    down = str(REPOSITORY / "tasks/down.py")
    done = pyinfra(project, "-y", "inventory.py", down, "--limit", "@uml/node1")
    assert "dead" not in done.stdout and "failed=0" in done.stdout, done.stdout
    done = pyinfra(project, "-y", "inventory.py", down)
    assert "Traceback" not in done.stdout, done.stdout
    assert "lab host dead cannot be reached; left as they are: node2" in done.stdout
    node1, node2 = ([r for r in done.stdout.splitlines() if f"[@uml/node{n}]" in r] for n in (1, 2))
    assert [row for row in node2 if "lab host dead cannot be reached" in row], done.stdout
    assert not [row for row in node1 if "rror" in row], done.stdout
    assert done.returncode == 1
    done = pyinfra(project, "-y", "inventory.py", down, "--limit", "@uml/node2")
    assert "Traceback" not in done.stdout and done.returncode == 1, done.stdout


@needs_root
@pytest.mark.parametrize("option", ["--dry", "-y"])
def test_a_deploy_file_that_raises_is_a_failure(project: Path, option: str) -> None:
    """Under --dry it ended with exit code 0: nothing was planned, and nothing seemed to differ."""
    (project / "mine.py").write_text("from umlaan.run import begin\nbegin()\nraise KeyError('x')\n")
    done = pyinfra(project, option, "inventory.py", "mine.py", "--limit", "@uml/node1")
    assert "KeyError" in done.stdout
    assert done.returncode == 1, done.stdout
