"""Run a build in a sandbox without a network, the sources at their fixed places.

Inside, /usr/src holds linux (the tree, read-only), out (the O= folder), ccache, and what else the
sources include by an absolute path below /usr/src, for example dvs. The paths are the same on each
machine, so the same inputs give the same bytes, and a killed build leaves no mount behind. Root is
the lab host's own, or a build root's; read-only, so that a build leaves nothing but its results.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass, field

from umlaan.agent import beneath, sandbox

SRC = "/usr/src"
TREE = f"{SRC}/linux"
OUT = f"{SRC}/out"
CCACHE = f"{SRC}/ccache"
# Of the machine's own root a build sees all but these: sockets of its daemons, files on their way.
HIDDEN = {"/run": 0o755, "/tmp": 0o1777}
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
        folders = sandbox.PATH.split(":")
        return any(beneath.is_program(self.root, f"{folder}/{program}") for folder in folders)

    def argv(self, command: list[str]) -> list[str]:
        """The whole command: the sandbox's words, then the command itself."""
        own = self.root == "/"
        # A build root is ours to make folders in, until all that is bound has its place.
        words = [*sandbox.apart(), *sandbox.tree(self.root, read_only=own)]
        words += [*sandbox.proc(), *sandbox.devices()]
        if any(place.startswith(f"{SRC}/") for place in (*self.writable, *self.read_only)):
            if own:
                os.makedirs(SRC, exist_ok=True)
            words += sandbox.memory(SRC)
        for path, mode in HIDDEN.items():
            if beneath.is_folder(self.root, path):
                words += sandbox.memory(path, mode, None)
        for place, origin in self.writable.items():
            words += ["--bind", origin, place]
        for place, origin in self.read_only.items():
            words += ["--ro-bind", origin, place]
        if not own:
            words += ["--remount-ro", "/"]
        words += sandbox.command(["env", "-i", *self._variables(), *command])
        return ["setarch", self.personality, *words] if self.personality else words

    def _variables(self) -> list[str]:
        given = {"PATH": sandbox.PATH, "HOME": "/nonexistent", "LC_ALL": "C", **PINNED}
        return [f"{name}={value}" for name, value in {**given, **self.environment}.items()]

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
