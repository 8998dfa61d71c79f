"""The benchmark's own lab: its folder, its names, umlaan's runs on it, and its model."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench.timing import Failed, Timed, timed
from umlaan.agent import keys
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.model.node import Node
from umlaan.plan.guest import Secrets

REPO = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent
LAST = re.compile(r"^umlaan: changed=(\d+) .* verdict=(\w+)$", re.MULTILINE)

_QUIET = re.compile(r"^\s*$|^--> |: Ready:|No changes|Skipped|Connected|Loading")


def _tells(line: str) -> bool:
    return not _QUIET.search(line)


@dataclass
class BenchLab:
    """A lab that shares nothing with the user's: namespace, state and caches are its own."""

    folder: Path
    name: str = "umlaan-bench"
    data: dict[str, str] = field(default_factory=dict)
    repo: Path = REPO

    @property
    def words(self) -> list[str]:
        """The data that keep it apart, as options of pyinfra."""
        own = {
            "lab": self.name,
            "state_dir": f"{self.folder}/state",
            "cache_dir": f"{self.folder}/cache",
            **self.data,
        }
        return [word for key, value in own.items() for word in ("--data", f"{key}={value}")]

    def run(self, deploy: str, verdict: str = "up", changed: int | None = None) -> Timed:
        """One run of umlaan's. Failed unless it ends as it should."""
        words = [str(PROGRAMS / "pyinfra"), "-y", *self.words, "inventory.py", deploy]
        done = timed(words, self.repo, {"PYINFRA_PROGRESS": "off"})
        last = LAST.findall(done.output)
        if not last or last[-1][1] != verdict or changed not in (None, int(last[-1][0])):
            told = "\n".join(f"    {line}" for line in done.output.splitlines() if _tells(line))
            raise Failed(f"{deploy}: wanted verdict={verdict}, changed={changed}: {last}\n{told}")
        return done

    def exec(self, host: str, command: str) -> Timed:
        """A command in a node, by whichever way it is reached."""
        words = [str(PROGRAMS / "pyinfra"), "-y", *self.words, "--limit", host]
        return timed([*words, "inventory.py", "exec", "--", command], self.repo)

    def destroy(self) -> None:
        """Everything that it made is gone, but for its caches."""
        self.run("tasks/destroy.py", verdict="absent")

    def status(self) -> dict[str, object]:
        """``umlaan status --json``, exit code 0 or 2."""
        words = [str(PROGRAMS / "umlaan"), "status", "--json", *self.words]
        found = json.loads(timed(words, self.repo).output)
        assert isinstance(found, dict)
        return found

    def forget(self, *names: str) -> None:
        """Remove folders of its own."""
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def model(self, **more: str) -> Lab:
        """The lab as umlaan's model has it."""
        data = _group_data(self.repo) | {
            "lab": self.name,
            "state_dir": f"{self.folder}/state",
            "cache_dir": f"{self.folder}/cache",
            **self.data,
            **more,
        }
        rows = [HostData("@local", False, data)]
        rows.append(HostData("@uml/node1", True, {**data, "lab_host": "@local"}))
        return build_lab(rows)

    def node(self, **more: str) -> Node:
        """Its only node."""
        return self.model(**more).node("node1")

    def secrets(self) -> Secrets:
        """What the guest gets of the lab's keys."""
        return Secrets(**keys.read({"dir": f"{self.folder}/state/ssh", "node": "node1"}))


def _group_data(repo: Path) -> dict[str, object]:
    """The values of the default lab, as pyinfra reads them."""
    found: dict[str, object] = {}
    exec((repo / "group_data/all.py").read_text(), found)
    return {k: v for k, v in found.items() if not k.startswith("_") and k != "annotations"}
