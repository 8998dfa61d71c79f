"""The management console's client against a stand-in for UML's own end, on a full disk too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.uml import REPOSITORY
from umlaan.agent import mconsole

# Fills a file system's inodes once the server's socket is there, then asks.
_SCRIPT = """
import os, socket, struct, sys, threading
from umlaan.agent import mconsole
top = sys.argv[1]
os.makedirs(f"{top}/uml/node1")
path = f"{top}/uml/node1/mconsole"
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(path)
try:
    for n in range(1000):
        open(f"{top}/file{n}", "w").close()
except OSError:
    print("full")
def serve():
    data, sender = server.recvfrom(4096)
    server.sendto(struct.pack("=III", 0, 0, 5) + b"heard", sender)
threading.Thread(target=serve, daemon=True).start()
name = f"test-{os.getpid()}"
mconsole.secrets.token_hex = lambda _: name
print(mconsole.ask(path, "cad"))
print([n for n in os.listdir(mconsole.REPLIES) if n == name])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
def test_a_guest_on_a_full_disk_can_still_be_told_to_end_cleanly(tmp_path: Path) -> None:
    mounted = 'mount -t tmpfs -o nr_inodes=12 t "$0" && exec "$@"'
    words = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, str(tmp_path), *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["full", "(True, 'heard')", "[]"], done.stderr


@pytest.mark.parametrize("linked", ["mconsole", "node1"])
def test_no_link_of_a_guest_s_is_followed_to_another_socket(tmp_path: Path, linked: str) -> None:
    """Its umid folder is the guest's to write: root must not speak to what it points at."""
    folder = tmp_path / "uml" / "node1"
    folder.mkdir(parents=True)
    others = tmp_path / "others"
    others.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(str(others / "mconsole"))
        door.settimeout(0.0)
        if linked == "node1":
            folder.rmdir()
            folder.symlink_to(others)
        else:
            (folder / "mconsole").symlink_to(others / "mconsole")
        with pytest.raises(mconsole.Silent):
            mconsole.ask(f"{folder}/mconsole", "cad", timeout=0.2)
        with pytest.raises(BlockingIOError):
            door.recv(1)


def test_nobody_there_is_silence_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "node1").mkdir()
    with pytest.raises(mconsole.Silent, match="No such file"):
        mconsole.ask(f"{tmp_path}/node1/mconsole", "version")
    assert os.listdir(tmp_path) == ["node1"]
