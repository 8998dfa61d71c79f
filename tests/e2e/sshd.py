"""An sshd of a test's own on loopback, with keys of its own: another machine, as umlaan sees it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "127.0.0.1"


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, object]]:
    """pyinfra's data for the host 127.0.0.1 while it is served; folder must not be there yet."""
    folder.mkdir(mode=0o700, parents=True)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        port = free.getsockname()[1]
    options = {
        "ListenAddress": f"{ADDRESS}:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    with subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *words]) as daemon:
        try:
            _await(port)
            yield {
                "ssh_port": port,
                "ssh_user": "root",
                "ssh_key": str(folder / "user"),
                "ssh_known_hosts_file": str(folder / "known"),
                "ssh_strict_host_key_checking": "accept-new",
            }
        finally:
            daemon.terminate()


def _await(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((ADDRESS, port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.1)
