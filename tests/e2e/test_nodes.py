"""Two nodes that reach each other, one limited run, one lab's lock, and runs killed half-way."""

from __future__ import annotations

import base64
import os
import shlex
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import REPO, Lab

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Lab:
    lab.nodes = ["@uml/node1", "@uml/node2"]
    result = lab.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    return lab


def test_two_nodes_ping_each_other(pair: Lab) -> None:
    for here, there in (("node1", "node2"), ("node2", "node1"), ("node2", "node0")):
        result = pair.exec(f"@uml/{here}", "ping", "-n", "-c", "2", there)
        assert " 0% packet loss" in result.output, result.output


def test_both_are_left_alone_the_second_time(pair: Lab) -> None:
    result = pair.deploy()
    assert (result.changed, result.verdict) == (0, "up"), result.output


def test_limit_repairs_one_node_and_leaves_the_other_down(pair: Lab) -> None:
    for node in ("node1", "node2"):
        assert pair.exec(f"@uml/{node}", "poweroff").code in (0, 1)
    _wait_down(pair, "node1", "node2")
    # The lab host alone: its nodes are told of, and not asked to be up.
    result = pair.deploy("--limit", "@local")
    assert (result.code, result.changed, result.verdict) == (0, 0, "down"), result.output
    result = pair.deploy("--limit", "@uml/node1")
    assert (result.code, result.verdict) == (0, "up"), result.output
    assert pair.dry().verdict == "drifted"
    assert pair.deploy().verdict == "up"
    result = pair.deploy("--limit", "@local")
    assert (result.code, result.changed, result.verdict) == (0, 0, "up"), result.output


_OWN_BASE64 = """\
#!/bin/sh
if [ -e /run/umlaan-chroot ]; then
    for p in 1 self $PPID; do echo evil >/proc/$p/root%s/owned; done
    hostname umlaan-evil; echo 3 >/proc/sys/kernel/printk; ip link set lo down
    echo evil >>/etc/resolv.conf; date -s @1000000000
fi >/dev/null 2>&1
echo ran >>/base64.ran
exec /usr/bin/base64.real "$@"
"""


def test_a_stopped_root_that_its_guest_made_hostile_reaches_nothing(pair: Lab) -> None:
    def script(text: str) -> Any:
        result = pair.exec("@uml/node1", "sh", "-c", shlex.quote(text))
        assert result.code == 0, result.output

    def machine() -> list[Any]:
        names = ("hostname", "printk")
        rows: list[Any] = [Path("/proc/sys/kernel", name).read_bytes() for name in names]
        rows += [Path("/sys/class/net/lo/flags").read_text(), os.listdir(victim)]
        return [*rows, Path("/etc/resolv.conf").read_bytes(), victim.stat().st_mtime_ns]

    victim = Path(tempfile.mkdtemp(dir="/var/tmp"))
    own = base64.b64encode((_OWN_BASE64 % victim).encode()).decode()
    script(
        f"cd /usr/bin && echo {own} | base64 -d >b && chmod 755 b && cp base64 base64.real "
        "&& mv -f b base64 && sync"
    )
    assert pair.exec("@uml/node1", "poweroff").code in (0, 1)
    _wait_down(pair, "node1")
    before = machine()
    clock = time.time() - time.monotonic()
    assert pair.dry().verdict == "drifted"
    # Its sbin leads to a folder of the machine's while packages are asked for.
    script(f"mv /usr/sbin /usr/sbin.real; ln -s {victim} /usr/sbin; : dpkg")
    script("base64 /etc/hostname; [ -e /base64.ran ] && : dpkg")
    script("/bin/rm /usr/sbin && /bin/mv /usr/sbin.real /usr/sbin")
    assert machine() == before
    assert abs(time.time() - time.monotonic() - clock) < 600
    script("cd /usr/bin && mv -f base64.real base64 && rm -f /base64.ran")
    assert pair.deploy().verdict == "up"
    victim.rmdir()


def test_one_nodes_failure_stops_that_node_alone(pair: Lab) -> None:
    pair.host_data["@uml/node2"] = {"node.extra_args": ["init=/no/such/init"]}
    result = pair.deploy()
    pair.host_data.pop("@uml/node2")
    assert result.verdict == "failed" and result.code != 0
    assert "Traceback" not in result.output
    assert "node2: " in result.output and "console.log" in result.output, result.output
    alive = pair.exec("@uml/node1", "true")
    assert alive.code == 0, alive.output
    assert pair.deploy().verdict == "up"


def test_two_runs_at_once_the_second_names_the_first(pair: Lab) -> None:
    holder = _started(pair)
    try:
        _until_output(holder, "Beginning operation run")
        second = pair.deploy()
        assert "another run is at work on @local" in second.output, second.output
        assert f"pid {holder.pid}" in second.output
        assert second.code != 0
    finally:
        holder.wait(120)
    assert pair.deploy().changed == 0


@pytest.mark.parametrize("word", ["Base image", "Root | Root", "DVS tree", "Launch"])
def test_a_run_killed_half_way_converges(pair: Lab, word: str) -> None:
    assert pair.destroy().verdict == "absent"
    run = _started(pair)
    _until_output(run, f"Starting operation: {word}" if "|" in word else word)
    time.sleep(0.3)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    _settle(pair)
    result = pair.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    again = pair.deploy()
    assert (again.changed, again.verdict) == (0, "up"), again.output


def _started(lab: Lab) -> subprocess.Popen[str]:
    return subprocess.Popen(
        lab.words("deploy.py"),
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1"},
    )


def _until_output(run: subprocess.Popen[str], word: str) -> None:
    assert run.stdout is not None
    seen = []
    for line in run.stdout:
        seen.append(line)
        if word in line:
            return
    raise AssertionError("".join(seen))


def _settle(lab: Lab) -> None:
    """The lock goes with the killed run's pipe; wait for it rather than guess."""
    deadline = time.monotonic() + 60
    path = Path(f"/run/umlaan/{lab.name}.lock")
    while time.monotonic() < deadline:
        free = subprocess.run(["flock", "-n", str(path), "true"])
        if free.returncode == 0:
            return
        time.sleep(0.1)


def _wait_down(lab: Lab, *nodes: str) -> None:
    import json

    deadline = time.monotonic() + 30
    for node in nodes:
        record = json.loads((lab.state_dir / "nodes" / node / "launch.json").read_text())
        while time.monotonic() < deadline and Path(f"/proc/{record['pid']}/root").exists():
            time.sleep(0.2)
