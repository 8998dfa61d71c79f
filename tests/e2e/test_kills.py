"""A run killed at every operation's boundary: the next goes on, in the end it converges.

One lab is taken up, then down, by runs of which each is killed one operation later than the one
before: with all its children, once that operation has said what it is about to do.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.lab import LAST, REPO, Lab

pytestmark = pytest.mark.timeout(900)

STARTED = re.compile(r"--> Starting operation: (.*\S)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What a run must pass on its way, in both directions: the stages that a kill could break.
UP = ("Access: ssh keys", "Bridge and names", "DVS, DC and proxies of the lab host", "Root")
UP += ("Guest: identity", "Guest: DVS tree", "Launch", "Proxies connected, nodes joined")
DOWN = ("Stop", "DVS, DC and proxies of the lab host away", "State folder")


@contextmanager
def running(lab: Lab, story: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a process group of its own, which is killed at the end if it has not ended."""
    process = subprocess.Popen(
        lab.words(story),
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "PYINFRA_PROGRESS": "off"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def killed_in(lab: Lab, story: str, number: int) -> tuple[str | None, str]:
    """(the operation in which a run was killed, its output); None where it had fewer and ended."""
    begun, name, said = 0, "", ""
    with running(lab, story) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text = COLOURS.sub("", line)
            said += text
            if begun == number and name and text.strip():
                # It has said why, or that nothing is to be done.
                return name, said
            if match := STARTED.search(text):
                begun, name = begun + 1, match[1]
    return None, said


def chain(lab: Lab, story: str) -> tuple[list[str], str]:
    """The operations in which runs were killed, each one later; how the first whole run ended."""
    names: list[str] = []
    while True:
        name, said = killed_in(lab, story, len(names) + 1)
        assert "Traceback" not in said and "Error: executed" not in said, f"{names}\n{said}"
        if name is None:
            return names, said
        names.append(name)
        assert len(names) < 60


def passed(names: list[str], wanted: tuple[str, ...]) -> list[str]:
    """Those of the wanted operations in which no run was killed."""
    return [one for one in wanted if not any(one in name for name in names)]


def test_killed_in_every_operation_on_the_way_up_and_down(lab: Lab) -> None:
    lab.data["kernel"] = "ready:package:user-mode-linux"
    names, said = chain(lab, "deploy.py")
    assert passed(names, UP) == []
    last = LAST.match(said.rstrip().splitlines()[-1])
    assert last and (last[3], last[5]) == ("0", "up"), said
    again = lab.deploy()
    assert (again.changed, again.verdict, again.code) == (0, "up", 0), again.output
    # What the runs left of their own is found by nobody: neither beside files nor in the machine.
    strays = [str(path) for path in lab.state_dir.rglob("*.umlaan-new-*")]
    assert strays == []
    names, said = chain(lab, "tasks/destroy.py")
    assert passed(names, DOWN) == []
    last = LAST.match(said.rstrip().splitlines()[-1])
    assert last and (last[3], last[5]) == ("0", "absent"), said
    again = lab.destroy()
    assert (again.changed, again.verdict, again.code) == (0, "absent", 0), again.output
