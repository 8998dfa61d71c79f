"""Waiting for an sshd's greeting: one connection at a time, kept while it stands."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.operations.test_node import ONE, lab_of
from tests.unit.uml import REPOSITORY
from umlaan.agent import reach
from umlaan.plan import node as plan
from umlaan.plan.access import connect_timeout, ssh_words


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        monkeypatch.setattr(reach, "SSH_PORT", server.getsockname()[1])
        yield server


def nobody_else_knocks(door: socket.socket) -> bool:
    door.settimeout(0.2)
    try:
        door.accept()[0].close()
    except TimeoutError:
        return True
    finally:
        door.settimeout(10)
    return False


def test_a_slow_sshd_is_knocked_at_once_and_heard_when_it_greets(door: socket.socket) -> None:
    greeting = reach.Greeting("127.0.0.1")
    assert not greeting.look(0.05)
    guest, _ = door.accept()
    assert not greeting.look(0.05) and not greeting.look(0.05)
    assert nobody_else_knocks(door), "each connection costs a slow guest a fork"
    guest.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n")
    assert greeting.look(10)
    guest.close()


def test_one_that_closes_or_says_something_else_is_asked_again(door: socket.socket) -> None:
    greeting = reach.Greeting("127.0.0.1")
    for answer in (b"", b"HTTP/1.1 400\r\n"):
        assert not greeting.look(0.05)
        guest, _ = door.accept()
        guest.sendall(answer)
        guest.close()
        assert not greeting.look(10)
    assert not greeting.look(0.05)
    guest, _ = door.accept()
    guest.sendall(b"SSH-2.0-x\r\n")
    assert greeting.look(10)
    guest.close()


def test_one_that_never_greets_is_given_up_after_a_while(
    door: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    greeting = reach.Greeting("127.0.0.1")
    assert not greeting.look(0.05)
    first, _ = door.accept()
    monkeypatch.setattr(reach.Greeting, "PATIENCE_S", 0.0)
    assert not greeting.look(0.05)
    assert greeting.link is None
    assert first.recv(1) == b"", "the old connection is closed"
    assert not greeting.look(0.05)
    door.accept()[0].close()
    first.close()


def test_nobody_there_is_no_greeting(door: socket.socket) -> None:
    door.close()
    assert not reach.Greeting("127.0.0.1").look(0.5)


def test_a_node_that_may_boot_long_may_greet_late() -> None:
    assert connect_timeout(ONE) == 5
    assert plan.question(lab_of(dvs=None), (ONE,))["reach"] == 1.0
    slow = lab_of(dvs=None, node={"boot_timeout": 900})
    node = slow.node("node1")
    assert "ConnectTimeout=50" in ssh_words(node)
    assert plan.question(slow, (node,))["reach"] == 10.0
    assert connect_timeout(lab_of(dvs=None, node={"boot_timeout": 3600}).node("node1")) == 180


def asked_plainly(script: str) -> str:
    """What the agent's own process says: it knows no gevent, which closes pipes in its own time."""
    start = "from umlaan.agent import proc, reach\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", start + script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return (done.stdout + done.stderr).splitlines()[-1]


def test_what_keeps_nodes_from_being_asked_is_no_answer_of_theirs() -> None:
    """Taken for silence, it had every node of the lab host restarted."""
    script = (
        "def full(*_): raise OSError(24, 'Too many open files')\n"
        "proc.enter_network = full\n"
        "print(reach.in_namespace('lab', ['192.168.1.101'], 0.1))\n"
    )
    said = asked_plainly(script)
    assert said == "OSError: in namespace lab: OSError: [Errno 24] Too many open files"


def test_nobody_answers_in_a_namespace_that_is_gone() -> None:
    said = asked_plainly("print(reach.in_namespace('umlaan-nowhere', ['192.168.1.101'], 0.1))")
    assert said == "{'192.168.1.101': False}"
