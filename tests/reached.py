"""A machine of a test's own that answers by ssh on a port of 127.0.0.1."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.debian import ssh_key

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


class Reached:
    """Commands in a machine. What runs it gives name, port and the two below."""

    name: str
    port: int

    def runs(self) -> bool:
        """Whether the machine is switched on."""
        raise NotImplementedError

    def tail(self, count: int = 30) -> str:
        """The console's last lines."""
        raise NotImplementedError

    @property
    def key(self) -> Path:
        return ssh_key()

    def data(self) -> dict[str, object]:
        """pyinfra's data for it."""
        return {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": self.port,
            "ssh_user": "root",
            "ssh_key": str(self.key),
            "ssh_strict_host_key_checking": "off",
            "ssh_known_hosts_file": "/dev/null",
        }

    def ssh_words(self) -> list[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        options += ("ConnectTimeout=20", "BatchMode=yes", "IdentitiesOnly=yes")
        words = ["ssh", "-F", "/dev/null", "-i", str(self.key), "-p", str(self.port)]
        for option in options:
            words += ["-o", option]
        return [*words, "root@127.0.0.1"]

    def ssh(
        self, command: str, *, check: bool = True, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """A command inside; AssertionError, with what it printed, if it fails and check is set."""
        done = subprocess.run(
            [*self.ssh_words(), command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, command: str, timeout: float = 600) -> str:
        """What a command inside prints."""
        return self.ssh(command, timeout=timeout).stdout.strip()

    def boot_id(self) -> str:
        return self.out(BOOT_ID)

    def wait(self, deadline: float = 900, other_than: str = "") -> float:
        """Wait until a boot other than the named one answers by ssh; the seconds it took."""
        started = time.monotonic()
        while time.monotonic() - started < deadline:
            if not self.runs():
                raise AssertionError(f"the machine is off; {self.tail()}")
            try:
                done = self.ssh(BOOT_ID, check=False, timeout=deadline)
            except subprocess.TimeoutExpired:
                continue
            if done.returncode == 0 and done.stdout.strip() != other_than:
                return time.monotonic() - started
            time.sleep(0.3)
        raise AssertionError(f"no ssh within {deadline:.0f} s; {self.tail()}")
