"""A lab in a scratch folder: pyinfra runs on it, in namespaces of the test's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = f"net{os.getpid()}"
NAMESPACE = f"umlaan-{LAB}"
USER = f"umlaan-{LAB}"

STORIES = {
    "connect": "network.tap() if '@uml' in host.groups else network.bridge()\n",
    "disconnect": "if '@uml' not in host.groups:\n    network.away()\n",
}


def sh(command: str, *, check: bool = True) -> str:
    done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Scratch:
    """A lab of its own: pyinfra runs on it, in a namespace that stands for the host if given."""

    def __init__(self, folder: Path, namespace: str | None, host: str | None = None) -> None:
        self.folder = folder
        self.host = host
        self.nodes = [1, 2]
        self.data = {
            "lab": LAB,
            "network": {"namespace": namespace},
            "state_dir": str(folder / "state"),
            "cache_dir": str(folder / "cache"),
        }
        self.environment: dict[str, str] = {}
        (folder / "group_data").mkdir()
        for verb, story in STORIES.items():
            (folder / f"{verb}.py").write_text(
                f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
                f"from pyinfra.context import host\nfrom tasks import network\n\n{story}"
            )

    def run(
        self, verb: str = "connect", *more: str
    ) -> tuple[list[str], subprocess.CompletedProcess]:
        """The reasons that the run gave, sorted, and how it ended."""
        hosts = [f"@uml/node{n}" for n in self.nodes]
        (self.folder / "inventory.py").write_text(f"node0 = ['@local']\numl = {hosts!r}\n")
        lines = [f"{key} = {value!r}\n" for key, value in self.data.items()]
        (self.folder / "group_data" / "all.py").write_text("".join(lines))
        enter = ["ip", "netns", "exec", self.host] if self.host else []
        done = subprocess.run(
            [*enter, sys.executable, "-m", "pyinfra", "-y", "inventory.py", f"{verb}.py", *more],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        done.stdout = text
        assert "Traceback" not in text, text
        rows = re.findall(r"^ +\[(@\S+)\] +(.*)$", text, re.MULTILINE)
        noise = ("Connected", "Ready", "Skipped", "Success", "No changes", "Error")
        return sorted(f"{h} {t}" for h, t in rows if not t.startswith(noise)), done


@contextmanager
def in_namespace(folder: Path) -> Iterator[Scratch]:
    """A lab in a namespace of its own, away at the end whatever happened."""
    try:
        yield Scratch(folder, NAMESPACE)
    finally:
        sh(f"ip netns del {NAMESPACE} 2>/dev/null || true; rm -rf /etc/netns/{NAMESPACE}")
        sh(f"! getent passwd {USER} || userdel {USER}")
