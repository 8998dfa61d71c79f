"""The bare commands that a cold run stands for, as a person would type them, one after the other.

The same source, configuration and -j, the same packages and image, the same command line of the
guest; no ccache, nothing kept from before, nothing checked but that the guest answers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.lab import BenchLab
from bench.timing import Failed, cpu, timed
from umlaan.agent import apt, baseimage
from umlaan.agent.chamber import PINNED
from umlaan.model.node import Node
from umlaan.plan import dvs as dvs_plan
from umlaan.plan import guest as guest_plan
from umlaan.plan import root as root_plan
from umlaan.plan.node import command_line

BOOT_S = 120.0


class Bare:
    """One machine's worth of bare commands in a folder of their own."""

    def __init__(self, lab: BenchLab, folder: Path) -> None:
        """lab is up: kernel configuration, keys and data are taken from it."""
        self.lab, self.folder = lab, folder
        self.name = f"{lab.name}-bare"
        self.model = lab.model(lab=self.name, state_dir=f"{folder}/state")
        self.node: Node = self.model.node("node1")
        self.settings = self.model.settings("@local")
        # Large trees where umlaan has them, so that both sides have the same disk under them.
        memory = Path(baseimage.MEMORY)
        self.root = (memory if baseimage._roomy() else folder) / f"{self.name}-root"
        self.guest: subprocess.Popen[bytes] | None = None
        self.seconds: dict[str, float] = {}
        self.cpu = 0.0

    def step(self, name: str, work: Callable[[], None]) -> None:
        """One step, timed."""
        started, used = time.monotonic(), cpu()
        work()
        self.cpu += cpu() - used
        self.seconds[name] = time.monotonic() - started

    def everything(self) -> float:
        """All of it, cold; seconds until ssh answers. Failed, naming the step's command."""
        self.folder.mkdir(parents=True)
        Path(self.node.uml_dir).mkdir(parents=True)
        Path(self.node.kernel_path).parent.mkdir(parents=True)
        self.step("kernel", self.kernel)
        self.step("DVS", self.dvs)
        self.step("image", self.image)
        self.step("network", self.network)
        self.step("boot", self.boot)
        return sum(self.seconds.values())

    def kernel(self) -> None:
        """tar xf, cp .config, make olddefconfig, make -jN; or a copy of the ready one."""
        ours = Path(self.lab.node().kernel_path)
        if self.node.kernel.source.ready:
            shutil.copyfile(ours, self.node.kernel_path)
        else:
            package = self.node.kernel.source.package
            packed = next(Path("/usr/src").glob(f"{package}.tar.*"))
            out = self.folder / "out"
            out.mkdir()
            self.call("tar", "-xf", str(packed), "-C", str(self.folder))
            shutil.copyfile(ours.parent / "config", out / ".config")
            tree = next(self.folder.glob("linux-source-*"))
            arch = f"ARCH=um SUBARCH={self.node.kernel.subarch}".split()
            make = ["make", "-s", "-C", str(tree), f"O={out}", *arch]
            self.call(*make, "olddefconfig")
            self.call(*make, f"-j{len(os.sched_getaffinity(0))}", "linux")
            shutil.copyfile(out / "linux", self.node.kernel_path)
        os.chmod(self.node.kernel_path, 0o755)

    def dvs(self) -> None:
        """cp -r and make in each folder, for both variants; tar cvzf dvs.tar.gz."""
        tree = self.settings.dvs
        assert tree is not None
        source = str(self.lab.repo / tree.source)
        spec = dvs_plan.spec(tree, self.model.hosts[0], source)
        for variant, steps in spec["variants"].items():
            home = self.folder / variant / "dvs"
            shutil.copytree(source, home, ignore=shutil.ignore_patterns(*tree.exclude))
            for step in steps:
                words = [f"{name}={value}" for name, value in step["variables"].items()]
                self.call("make", "-s", "-C", str(home / step["dir"]), *words, *step["targets"])
        packed = str(self.folder / "dvs.tar.gz")
        self.call("tar", "-czf", packed, "-C", str(self.folder / "ipc"), "dvs")

    def image(self) -> None:
        """mmdebstrap, the guest's files and the DVS into the folder, mke2fs -d."""
        made = root_plan.spec(self.model.hosts[0], (self.node,))["nodes"]["node1"]["made"]
        archive = made["mirror"] or apt.mirror()
        lines = baseimage.sources(made, apt.own_suite(), archive)
        shutil.rmtree(self.root, ignore_errors=True)
        self.call(*baseimage.mmdebstrap(made, str(self.root), lines))
        for file in self.files():
            path = self.root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)
            path.chmod(file.mode)
        packed = str(self.folder / "dvs.tar.gz")
        self.call("tar", "-xzf", packed, "-C", str(self.root / "usr/src"))
        image = Path(self.node.root_path)
        with image.open("wb") as target:
            target.truncate(made["bytes"])
        self.call(*baseimage.mke2fs(made, str(self.root), str(image)))

    def files(self) -> list[guest_plan.GuestFile]:
        """The guest's identity, with the keys of the lab."""
        secrets = self.lab.secrets()
        given = guest_plan.values(self.model, self.node, "eth0", secrets)
        return guest_plan.made_files(given, secrets)

    def network(self) -> None:
        """The procedure's bridge and tap, in a namespace."""
        network, tap = self.node.network, self.node.tap
        self.call("ip", "netns", "add", self.name)
        for line in (
            f"link add {network.bridge} type bridge mcast_snooping 0",
            f"address add {network.address} dev {network.bridge}",
            f"link set {network.bridge} promisc on up",
            f"tuntap add {tap} mode tap",
            f"link set {tap} master {network.bridge} up",
        ):
            self.call("ip", "-n", self.name, *line.split())

    def boot(self) -> None:
        """./linux …, until ssh answers."""
        key = self.lab.folder / "state/ssh/id_ed25519"
        inside = ["ip", "netns", "exec", self.name]
        with (self.folder / "console.log").open("wb") as log:
            self.guest = subprocess.Popen(
                [*inside, *command_line(self.node, "tuntap")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        options = "StrictHostKeyChecking=no UserKnownHostsFile=/dev/null ConnectTimeout=1"
        words = [word for option in options.split() for word in ("-o", option)]
        ssh = [*inside, "ssh", "-F", "none", "-i", str(key), *words, "-o", "LogLevel=QUIET"]
        deadline = time.monotonic() + BOOT_S
        while subprocess.run([*ssh, f"root@{self.node.address}", "true"]).returncode:
            if self.guest.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the bare guest does not answer, see {self.folder}/console.log")
            time.sleep(0.05)

    def call(self, *words: str) -> None:
        """One bare command. Failed, quoting it, where it fails."""
        timed(list(words), "/", PINNED)

    def clear(self) -> None:
        """Guest, namespace and folders away."""
        if self.guest is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.guest.pid, signal.SIGKILL)
            self.guest.wait()
        if Path(f"/run/netns/{self.name}").exists():
            subprocess.run(["ip", "netns", "delete", self.name], check=False)
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def told(self) -> str:
        """How long each step took."""
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
