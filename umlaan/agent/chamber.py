"""Run a build in a private mount and network namespace, the sources at their fixed places.

Inside, /usr/src holds linux (the tree, read-only), out (the O= folder), ccache, and what else the
sources include by an absolute path below /usr/src, for example dvs. The paths are the same on each
machine, so the same inputs give the same bytes, and a killed build leaves no mount behind. Root is
the lab host's own, or a build root's.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass, field

SRC = "/usr/src"
TREE = f"{SRC}/linux"
OUT = f"{SRC}/out"
CCACHE = f"{SRC}/ccache"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES = ("null", "zero", "full", "random", "urandom")
# All four are needed for the same bytes twice.
PINNED = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "umlaan",
    "KBUILD_BUILD_HOST": "umlaan",
    "KBUILD_BUILD_VERSION": "1",
}


class BuildError(Exception):
    """A build that cannot go on: one message for its user."""


@dataclass
class Chamber:
    """Where commands run: root, and what stands below /usr/src in it."""

    cache: str
    root: str = "/"
    personality: str | None = None
    read_only: dict[str, str] = field(default_factory=dict)
    writable: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def has(self, program: str) -> bool:
        """Whether a program is installed in the chamber."""
        root = self.root.rstrip("/")
        return any(os.access(f"{root}{folder}/{program}", os.X_OK) for folder in PATH.split(":"))

    def script(self, command: list[str]) -> str:
        """The shell script that mounts and then becomes the command."""
        stage = f"{self.cache}/chamber"
        root = self.root.rstrip("/")
        lines = [f"mount -t tmpfs -o mode=755,size=4m umlaan {shlex.quote(stage)}"]
        places = [(p, o, False) for p, o in self.writable.items()]
        places += [(p, o, True) for p, o in self.read_only.items()]
        for place, origin, only_read in places:
            # Elsewhere than below /usr/src only in a build root, which is ours to make folders in.
            below = place.startswith(f"{SRC}/") or not root
            target = shlex.quote(stage + place.removeprefix(SRC) if below else root + place)
            lines.append(f"mkdir -p {target}")
            lines.append(f"mount --bind {shlex.quote(origin)} {target}")
            if only_read:
                lines.append(f"mount -o remount,bind,ro {target}")
        lines.append(f"mkdir -p {shlex.quote(root + SRC)}")
        lines.append(f"mount --rbind {shlex.quote(stage)} {shlex.quote(root + SRC)}")
        environment = {
            "PATH": PATH,
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            **PINNED,
            **self.environment,
        }
        words = ["env", "-i", *(f"{k}={v}" for k, v in environment.items()), *command]
        if root:
            quoted = shlex.quote(root)
            lines += [
                f"mount -t proc proc {quoted}/proc",
                f"mount -t tmpfs -o mode=1777 umlaan {quoted}/tmp",
                f"mount -t tmpfs -o mode=755,size=64k umlaan {quoted}/dev",
            ]
            for name in DEVICES:
                lines.append(
                    f": >{quoted}/dev/{name}; mount --bind /dev/{name} {quoted}/dev/{name}"
                )
            lines.append(f"ln -s /proc/self/fd {quoted}/dev/fd")
            words = ["chroot", root, *words]
        if self.personality:
            words = ["setarch", self.personality, *words]
        lines += ["cd /", f"exec {shlex.join(words)}"]
        return "\n".join(lines)

    def argv(self, command: list[str]) -> list[str]:
        """The whole command: a private namespace, the mounts, then the command itself."""
        os.makedirs(f"{self.cache}/chamber", exist_ok=True)
        apart = ["unshare", "--mount", "--net", "--propagation", "private"]
        return [*apart, "sh", "-euc", self.script(command)]

    def run(self, command: list[str], *, terminal: bool = False) -> int:
        """Run with output inherited (it is the log), input only for a person; the exit code."""
        print(f"+ {shlex.join(command)}", flush=True)
        stdin = None if terminal else subprocess.DEVNULL
        return subprocess.run(self.argv(command), stdin=stdin, check=False).returncode

    def ask(self, command: list[str]) -> str:
        """What a command prints. BuildError if it fails."""
        done = subprocess.run(
            self.argv(command), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode:
            text = done.stderr.decode(errors="replace").strip()
            raise BuildError(f"{shlex.join(command)}: exit code {done.returncode}: {text[-600:]}")
        return done.stdout.decode(errors="replace").strip()


def say(text: str) -> None:
    """A line that reaches the person who waits, not only the log."""
    print(f"umlaan: {text}", flush=True)
