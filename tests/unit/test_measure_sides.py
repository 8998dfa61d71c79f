"""How a measured program is started, waited for and ended, with real processes of this machine."""

import sys
from pathlib import Path

import pytest

from umlaan.measure.sides import LocalSide

# As upstream's m3ftpd: it looks for a signal only when a receive has timed out.
SLOW = """
import os, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
with open("ready.new", "w") as file:
    file.write(str(os.getpid()))
os.rename("ready.new", "ready")
while not asked:
    time.sleep(0.02)
time.sleep(float(sys.argv[1]))
open("unbound", "w").close()
sys.exit(7)
"""


@pytest.fixture
def server(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)

    def start(seconds):
        side = LocalSide("node0")
        # In a folder of its own, so that its shell stays beside it and dies of the signal at once.
        script = f"cd {tmp_path} && {sys.executable} slow.py {seconds}"
        return side, side.start(script, 120, f"[ -e {tmp_path}/ready ]", 60)

    return start


def test_a_server_that_heeds_a_signal_late_is_given_the_time_it_was_promised(server, tmp_path):
    side, handle = server(2.5)
    assert handle.waited == 0
    done = side.finish(handle, 0, 60)
    assert done.timed_out
    assert (tmp_path / "unbound").exists()
    assert 2.5 <= done.seconds < 60


def test_a_server_that_heeds_no_signal_is_killed_when_its_time_is_over(server, tmp_path):
    side, handle = server(600)
    done = side.finish(handle, 0, 1)
    assert done.timed_out
    assert not (tmp_path / "unbound").exists()
    status = Path(f"/proc/{(tmp_path / 'ready').read_text()}/status")
    assert not status.exists() or "\nState:\tZ" in status.read_text()


def test_a_program_that_ends_by_itself_is_not_waited_for(tmp_path):
    side = LocalSide("node0")
    handle = side.start(f"cd {tmp_path} && echo figure && exit 3", 60)
    done = side.finish(handle, 30, 30)
    assert (done.code, done.timed_out) == (3, False)
    assert "figure" in done.output
