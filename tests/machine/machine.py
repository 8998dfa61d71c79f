"""Lab hosts as machines of a test's own, by systemd-nspawn: systemd, sshd, a reboot in seconds.

    with Underlay() as under:
        one, two = under.machine("one"), under.machine("two", disks={"/dev/sdb6": image})
        one.start(), two.start()
        one.wait(), two.wait()
        one.out("ping -c 1 " + two.address)

An underlay is a network namespace with a bridge, and as many machines on it as a test wants. It has
no way out and no address outside; a machine's sshd is reached by a port on 127.0.0.1, so that
pyinfra, ssh and builders beside it run as usual. Everything hangs on processes that end with the
test's own, whatever ends that.

The kernel is the machine's that the tests run on: no kernel, module or sysctl is a lab host's own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests import debian
from tests.machine import tree
from tests.reached import Reached

NETWORK = """[Match]
Name=host0

[Network]
Address={address}/24
LinkLocalAddressing=no
"""
# nspawn ends with 133 where it is to be started anew, for a reboot; what it keeps in its folder of
# /run it removes only where that is in memory. Its link ($0) goes some time after a power cut.
AGAIN = """
mkdir -p /run/systemd/nspawn
mount -t tmpfs nspawn /run/systemd/nspawn
while :; do
    code=0
    ip link delete "$0" 2>/dev/null || true
    "$@" || code=$?
    [ $code = 133 ] || exit $code
done
"""
BRIDGE = "under"
PROXY = "/lib/systemd/systemd-socket-proxyd"
# All that a test starts ends with it, killed or not.
BOUND = ["setpriv", "--pdeathsig", "KILL"]


def run(*words: str) -> str:
    """A command; AssertionError with what it printed if it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert not done.returncode, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Disk:
    """A file as a block device; the kernel lets go of it once nobody has it open."""

    file: Path
    device: str = ""
    held: int = -1

    def attach(self) -> str:
        self.device = run("losetup", "--find", "--show", str(self.file)).strip()
        self.held = os.open(self.device, os.O_RDONLY)
        # While it is held this only marks it: whatever ends the test, it is gone with it.
        run("losetup", "--detach", self.device)
        return self.device

    def release(self) -> None:
        if self.held >= 0:
            os.close(self.held)
            self.held = -1


@dataclass
class Machine(Reached):
    """One lab host. Its files are in a folder of its own, fresh for each test."""

    name: str
    folder: Path
    namespace: list[str]
    address: str
    port: int
    disks: dict[str, Disk] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    door: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    def create(self, listener: socket.socket) -> None:
        """Its tree and its disks, and the way from the port on 127.0.0.1 to its sshd."""
        self.folder.mkdir(parents=True)
        run("cp", "-a", "--reflink=auto", str(tree.tree()), str(self.root))
        debian.write(self.root, "etc/hostname", f"{self.name}\n")
        debian.write(self.root, "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        network = NETWORK.format(address=self.address)
        debian.write(self.root, "etc/systemd/network/10-host0.network", network)
        debian.let_in(self.root)
        for disk in self.disks.values():
            disk.attach()
        # The socket was made outside, the connections that it leads to are made within.
        script = 'exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        words = [*BOUND, *self.namespace, "sh", "-c", script, "sh", PROXY, f"{self.address}:22"]
        with (self.folder / "door.log").open("wb") as log:
            self.door = subprocess.Popen(words, stdin=listener, stdout=log, stderr=log)

    def start(self) -> None:
        """Switch it on."""
        assert self.process is None
        # Without the PID namespace around it what runs inside would outlive a killed nspawn.
        words = ["unshare", "--mount-proc", "--pid", "--fork", "--kill-child"]
        words += ["sh", "-ec", AGAIN, f"vb-{self.name}"[:15]]
        words += ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot"]
        words += [f"--machine={self.name}", "--register=no", "--keep-unit", "--capability=all"]
        words += [f"--network-bridge={BRIDGE}", "--resolv-conf=off", "--timezone=off"]
        words += ["--link-journal=no", "--console=pipe", "--bind=/dev/net/tun"]
        words += [f"--bind={disk.device}:{path}" for path, disk in self.disks.items()]
        # Two machines in one control group would take each other's services for their own.
        groups = self._groups()
        for group in groups:
            group.mkdir(exist_ok=True)
        join = "".join(f"echo $$ >{group}/cgroup.procs\n" for group in groups)
        with self.console.open("ab") as log:
            self.process = subprocess.Popen(
                [*BOUND, *self.namespace, "sh", "-ec", f'{join}exec "$@"', "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _groups(self) -> list[Path]:
        """A control group of its own in each hierarchy that systemd would manage."""
        tops = []
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, path, kind, options = line.split()[:4]
            if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
                tops.append(Path(path))
        return [top / f"umlaan-test-{os.getpid()}-{self.name}" for top in tops]

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Cut the power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def reboot(self) -> float:
        """From inside, and wait for it; the seconds it took."""
        before = self.boot_id()
        self.ssh("systemctl reboot", check=False)
        return self.wait(other_than=before)

    def remove(self) -> None:
        """All of it away."""
        self.kill()
        if self.door is not None:
            self.door.kill()
            self.door.wait()
        for disk in self.disks.values():
            disk.release()
        debian.remove(self.folder)
        for group in self._groups():
            _remove_group(group)

    def tail(self, count: int = 30) -> str:
        lines = self.console.read_text(errors="replace").splitlines()[-count:]
        return f"{self.name}'s console ends:\n" + "\n".join(lines)


def _remove_group(group: Path) -> None:
    """A control group and those below it; its last processes are still on their way out."""
    deadline = time.monotonic() + 30
    while group.exists():
        for path, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        assert time.monotonic() < deadline, f"{group}: still has processes"
        time.sleep(0.05)


class Underlay:
    """A network of machines; on leaving the with all of it is gone."""

    def __init__(self) -> None:
        self.machines: list[Machine] = []
        self.folder = Path(tempfile.mkdtemp(prefix="umlaan-machines-", dir="/var/tmp"))
        self._listeners: list[socket.socket] = []
        self._holder: subprocess.Popen[bytes] | None = None
        self.namespace: list[str] = []

    def __enter__(self) -> Underlay:
        assert os.geteuid() == 0, "makes machines: needs root"
        words = [*BOUND, "unshare", "--net", "sh", "-c", "echo; exec sleep infinity"]
        self._holder = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._holder.stdout and self._holder.stdout.read(1), "no network namespace"
        self.namespace = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]
        ip = [*self.namespace, "ip"]
        run(*ip, "link", "set", "lo", "up")
        run(*ip, "link", "add", BRIDGE, "type", "bridge")
        run(*ip, "address", "add", "10.77.0.1/24", "dev", BRIDGE)
        run(*ip, "link", "set", BRIDGE, "up")
        return self

    def machine(self, name: str, disks: dict[str, Path] | None = None) -> Machine:
        """Another machine, still switched off. disks: device in the machine -> file."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        self._listeners.append(listener)
        made = Machine(
            name,
            self.folder / name,
            self.namespace,
            address=f"10.77.0.{len(self.machines) + 2}",
            port=listener.getsockname()[1],
            disks={path: Disk(file) for path, file in (disks or {}).items()},
        )
        self.machines.append(made)
        made.create(listener)
        return made

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for machine in self.machines:
            machine.remove()
        for listener in self._listeners:
            listener.close()
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
        debian.remove(self.folder)
