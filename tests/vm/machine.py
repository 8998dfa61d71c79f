"""node0 as a whole machine: QEMU without acceleration, entered by ssh on 127.0.0.1 only.

Its user network is closed (restrict=on): nothing leaves it but the answers to that ssh.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm import guestroot, image

DATA_MIB = 1280
DATA_TABLE = """label: dos
start=2048, size=64MiB, type=83
type=5
size=64MiB, type=83
type=83
"""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_partition(disk: Path) -> tuple[int, int]:
    """(start, sectors) of the last partition of a disk image."""
    words = ["sfdisk", "-q", "-l", "-o", "Device,Start,Sectors", str(disk)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    start, sectors = lines[-1].split()[-2:]
    return int(start), int(sectors)


def data_disk(path: Path, root: Path) -> None:
    """The second disk: two primary, two logical partitions; root's image fills the last, sdb6."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(DATA_MIB << 20)
    subprocess.run(["sfdisk", "-q", str(path)], input=DATA_TABLE, text=True, check=True)
    start, sectors = last_partition(path)
    assert root.stat().st_size <= sectors * 512
    words = ["dd", f"if={root}", f"of={path}", "bs=1M", "conv=sparse,notrunc", "status=none"]
    subprocess.run([*words, "oflag=seek_bytes", f"seek={start * 512}"], check=True)


@dataclass
class Machine:
    """One machine with its disks and its serial log in a folder of its own."""

    folder: Path
    arch: str = "amd64"
    memory_mib: int = 1800
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> Path:
        return image.ssh_key()

    @property
    def serial(self) -> Path:
        return self.folder / "serial.log"

    def create(self) -> None:
        """Fresh disks: the system's is laid over the cached image, sdb6 holds a guest's root."""
        self.folder.mkdir(parents=True, exist_ok=True)
        base = image.image(self.arch)
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base)]
        subprocess.run([*words, str(self.folder / "sda.qcow2")], check=True)
        data_disk(self.folder / "sdb.raw", guestroot.root(self.arch))

    def command(self) -> list[str]:
        disks = (("sda", "sda.qcow2", "qcow2"), ("sdb", "sdb.raw", "raw"))
        forward = f"hostfwd=tcp:127.0.0.1:{self.port}-:22"
        words = ["setpriv", "--pdeathsig", "KILL", "nice", "-n", "10", "qemu-system-x86_64"]
        words += ["-accel", "tcg,thread=multi", "-smp", "2", "-m", str(self.memory_mib)]
        # QEMU's own default is an AMD with an erratum, whose idle loop lost its timer under load.
        words += ["-cpu", "Nehalem"]
        words += ["-display", "none", "-vga", "none", "-monitor", "none", "-no-user-config"]
        words += ["-nodefaults"]
        words += ["-serial", f"file:{self.serial}", "-device", "virtio-rng-pci"]
        for name, file, kind in disks:
            # The host's page cache outlives QEMU, so a flush would only cost time.
            drive = f"id={name},if=none,format={kind},cache=unsafe,discard=unmap"
            words += ["-drive", f"file={self.folder / file},{drive}"]
        # Two drivers, of which the initramfs has only the first: see image.py.
        words += ["-device", "virtio-scsi-pci,id=scsi0"]
        words += ["-device", "scsi-hd,drive=sda,bus=scsi0.0,bootindex=0"]
        words += ["-device", "ide-hd,drive=sdb,bus=ide.0"]
        words += ["-netdev", f"user,id=n0,restrict=on,{forward}"]
        words += ["-device", "virtio-net-pci,netdev=n0,romfile="]
        words += ["-netdev", "hubport,id=n1,hubid=1"]
        return [*words, "-device", "virtio-net-pci,netdev=n1,romfile="]

    def start(self) -> None:
        """Power on."""
        assert self.process is None
        if self.serial.exists():
            with (self.folder / "serial-before.log").open("ab") as file:
                file.write(self.serial.read_bytes())
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, start_new_session=True
        )

    def kill(self) -> None:
        """Cut the power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, timeout: float = 120) -> None:
        """Shut down from inside; cut the power after timeout seconds."""
        if self.process is None:
            return
        self.ssh("systemctl poweroff", check=False)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

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
        return self.out("cat /proc/sys/kernel/random/boot_id")

    def wait(self, deadline: float = 900, other_than: str = "") -> float:
        """Wait until a boot other than the named one answers by ssh; the seconds it took."""
        started = time.monotonic()
        while time.monotonic() - started < deadline:
            if self.process is None or self.process.poll() is not None:
                raise AssertionError(f"QEMU ended; {self.tail()}")
            try:
                done = self.ssh(
                    "cat /proc/sys/kernel/random/boot_id", check=False, timeout=deadline
                )
            except subprocess.TimeoutExpired:
                continue
            if done.returncode == 0 and done.stdout.strip() != other_than:
                seconds = time.monotonic() - started
                self._disks(deadline)
                return seconds
            time.sleep(1)
        raise AssertionError(f"no ssh within {deadline:.0f} s; {self.tail()}")

    def _disks(self, deadline: float) -> None:
        """Wait for the data disk, whose driver is loaded while the machine starts."""
        ask = "udevadm settle; findmnt -no SOURCE /; blkid -o value -s LABEL /dev/sdb6; uname -r"
        found = self.out(ask, timeout=deadline).split()
        print(f"booted: {' '.join(found)}", flush=True)
        assert found[:2] == ["/dev/sda1", guestroot.LABEL], f"disks: {found}; {self.tail()}"

    def tail(self, count: int = 30) -> str:
        """The serial log's last lines."""
        lines = self.serial.read_text(errors="replace").splitlines()[-count:]
        return "the serial log ends:\n" + "\n".join(lines)

    def first_boot(self) -> float:
        """Power on, wait, let grub's menu be made; the seconds until ssh answered."""
        self.start()
        seconds = self.wait()
        self.out("update-grub")
        return seconds


if __name__ == "__main__":
    # By hand: python -m tests.vm.machine FOLDER [PORT [ARCH]]; it lives as long as this does.
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("arch", nargs="?", default="amd64")
    given = parser.parse_args()
    one = Machine(given.folder, arch=given.arch, port=given.port or free_port())
    if not (one.folder / "sda.qcow2").exists():
        one.create()
        print(f"first boot: {one.first_boot():.0f} s", flush=True)
    else:
        one.start()
    print(f"pid {os.getpid()}: {' '.join(one.ssh_words())}", flush=True)
    print(f"up after {one.wait():.0f} s", flush=True)
    assert one.process is not None
    one.process.wait()
