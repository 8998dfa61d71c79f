"""node0 as a whole machine: QEMU without acceleration, entered by ssh on 127.0.0.1 only.

Its user network is closed (restrict=on): nothing leaves it but the answers to that ssh.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests import debian
from tests.machine import guestroot
from tests.reached import Reached
from tests.vm import image

# What the machine and its disk are made with; bin/test-tools brings it. Nothing here is skipped.
TOOLS = ("qemu-system-x86_64", "qemu-img", "sfdisk", "mmdebstrap", "grub-mkimage", "mke2fs", "ssh")


DATA_MIB = 1280
DATA_TABLE = """label: dos
start=2048, size=64MiB, type=83
type=5
size=64MiB, type=83
type=83
"""


def data_disk(path: Path, root: Path) -> None:
    """A second disk: two primary, two logical partitions; root's image fills the last, sdb6."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(DATA_MIB << 20)
    subprocess.run(["sfdisk", "-q", str(path)], input=DATA_TABLE, text=True, check=True)
    words = ["sfdisk", "-q", "-l", "-o", "Device,Start,Sectors", str(path)]
    table = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    start, sectors = (int(word) for word in table.splitlines()[-1].split()[-2:])
    assert root.stat().st_size <= sectors * image.SECTOR
    words = ["dd", f"if={root}", f"of={path}", "bs=1M", "conv=sparse,notrunc", "status=none"]
    subprocess.run([*words, "oflag=seek_bytes", f"seek={start * image.SECTOR}"], check=True)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Machine(Reached):
    """One machine with its disk and its serial log in a folder of its own."""

    folder: Path
    name: str = "machine0"
    arch: str = "amd64"
    memory_mib: int = 1024
    # A lab is tried in it by hand: sda is the system's, sdb6 a root of the user's.
    second_disk: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def serial(self) -> Path:
        return self.folder / "serial.log"

    def create(self) -> None:
        """A fresh disk, laid over the cached image."""
        self.folder.mkdir(parents=True, exist_ok=True)
        base = image.image(self.arch)
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base)]
        subprocess.run([*words, str(self.folder / "system.qcow2")], check=True)
        if self.second_disk:
            data_disk(self.folder / "data.raw", guestroot.root(self.arch))

    def command(self) -> list[str]:
        forward = f"hostfwd=tcp:127.0.0.1:{self.port}-:22"
        words = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"]
        words += ["-accel", "tcg,thread=multi", "-smp", "2", "-m", str(self.memory_mib)]
        # QEMU's own default is an AMD with an erratum, whose idle loop lost its timer under load.
        words += ["-cpu", "Nehalem"]
        words += ["-display", "none", "-vga", "none", "-monitor", "none", "-no-user-config"]
        words += ["-nodefaults"]
        words += ["-serial", f"file:{self.serial}", "-device", "virtio-rng-pci"]
        # The host's page cache outlives QEMU, so a flush would only cost time.
        drive = "if=none,cache=unsafe,discard=unmap"
        words += ["-drive", f"file={self.folder / 'system.qcow2'},id=system,format=qcow2,{drive}"]
        if self.second_disk:
            words += ["-device", "virtio-scsi-pci,id=scsi0"]
            words += ["-device", "scsi-hd,drive=system,bus=scsi0.0,bootindex=0"]
            words += ["-drive", f"file={self.folder / 'data.raw'},id=data,format=raw,{drive}"]
            words += ["-device", "ide-hd,drive=data,bus=ide.0"]
        else:
            words += ["-device", "virtio-blk-pci,drive=system,bootindex=0"]
        words += ["-netdev", f"user,id=n0,restrict=on,{forward}"]
        return [*words, "-device", "virtio-net-pci,netdev=n0,romfile="]

    def start(self) -> None:
        """Power on."""
        assert self.process is None
        if self.serial.exists():
            with (self.folder / "serial-before.log").open("ab") as file:
                file.write(self.serial.read_bytes())
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, start_new_session=True
        )

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Cut the power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wait(self, deadline: float = 900, other_than: str = "") -> float:
        seconds = super().wait(deadline, other_than)
        print(f"booted {self.out('uname -r')} in {seconds:.0f} s", flush=True)
        return seconds

    def tail(self, count: int = 30) -> str:
        lines = self.serial.read_text(errors="replace").splitlines()[-count:]
        return "the serial log ends:\n" + "\n".join(lines)

    def first_boot(self) -> float:
        """Power on, wait, let grub's menu be made; the seconds until ssh answered."""
        self.start()
        seconds = self.wait()
        self.out("update-grub")
        return seconds


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine that has just booted; it is gone afterwards."""
    assert os.geteuid() == 0, "makes a disk image: needs root"
    missing = [name for name in TOOLS if not shutil.which(name)]
    assert not missing, f"not installed: {', '.join(missing)}; make test-vm installs them"
    machine = Machine(folder)
    machine.create()
    try:
        machine.first_boot()
        yield machine
    finally:
        print(machine.tail(5))
        machine.kill()
        debian.remove(folder / "system.qcow2")


if __name__ == "__main__":
    # By hand: python -m tests.vm.machine FOLDER [PORT [ARCH]]; it lives as long as this does.
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("arch", nargs="?", default="amd64")
    given = parser.parse_args()
    one = Machine(given.folder, arch=given.arch, port=given.port or free_port(), second_disk=True)
    one.memory_mib = 1800
    if not (one.folder / "system.qcow2").exists():
        one.create()
        one.first_boot()
    else:
        one.start()
    print(f"pid {os.getpid()}: {' '.join(one.ssh_words())}", flush=True)
    one.wait()
    assert one.process is not None
    one.process.wait()
