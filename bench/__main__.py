"""``make bench-converge``: umlaan against the bare commands, against Ansible, and its own aims.

Everything stands in a folder of its own (--folder), caches included; it is removed at the end. A
run from nothing takes some ten minutes on two idle cores; figures of a loaded machine are printed
with the load and are no good for a verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.against import Ansible, environment, tasks
from bench.bare import Bare
from bench.lab import REPO, BenchLab
from bench.timing import Failed, drop_caches, load, median, say, timed
from umlaan.agent import trust
from umlaan.agent.files import narrow_umask

PARTS = ("cold", "noop", "warm", "memory")
READY = "ready:package:user-mode-linux"
COLD, FASTER, WARM_S, RUN_MB, NODE_MB = 1.15, 15.0, 45.0, 200.0, 80.0
NOTHING_S = {False: 480.0, True: 120.0}


@dataclass
class Row:
    """One line of the screen: what, umlaan's figure, the other's, against the aim."""

    what: str
    ours: str
    other: str
    found: float
    aim: float
    unit: str
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the aim is."""
        return self.found >= self.aim if self.at_least else self.found <= self.aim

    def cells(self) -> list[str]:
        """As the table shows it."""
        sign = "≥" if self.at_least else "≤"
        verdict = "[green]reached[/]" if self.reached else "[red]missed[/]"
        found = (
            f"{self.found:.2f}{self.unit}" if self.unit == "×" else f"{self.found:.1f}{self.unit}"
        )
        return [self.what, self.ours, self.other, found, f"{sign} {self.aim:g}{self.unit}", verdict]


class Bench:
    """The parts in their order; each leaves the lab as the next one wants it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = Path(options.folder)
        data = {"kernel": READY} if options.ready else {}
        # The folder's name is the lab's: two benchmarks at once never meet.
        self.lab = BenchLab(self.folder, self.folder.name, data=data)
        self.rows: list[Row] = []
        self.run_bytes: list[int] = []

    def all(self) -> None:
        """The parts asked for."""
        parts = self.options.parts
        self.cold() if "cold" in parts else self.up()
        if "memory" in parts:
            self.memory()
        if "noop" in parts:
            self.noop()
        self.lab.destroy()
        if "warm" in parts:
            self.warm()

    def up(self) -> None:
        """The lab, not measured."""
        say("the lab, not measured")
        self.lab.run("deploy.py")

    def cold(self) -> None:
        """All caches cold on both sides, umlaan first."""
        ours, theirs, used, spent = [], [], [], []
        for number in range(self.options.cold):
            if number:
                self.lab.destroy()
            self.lab.forget("cache", "state")
            say(
                "umlaan from nothing: caches empty" + ("" if drop_caches() else ", page cache warm")
            )
            done = self.lab.run("deploy.py")
            ours.append(done.seconds)
            used.append(done.cpu)
            self.run_bytes.append(done.own_bytes)
            bare = Bare(self.lab, self.folder / "bare")
            try:
                drop_caches()
                say(f"umlaan took {done.seconds:.1f} s; now the bare commands")
                theirs.append(bare.everything())
                spent.append(bare.cpu)
                say(f"bare: {bare.told()}")
            finally:
                bare.clear()
        us, them = median(ours), median(theirs)
        # On a machine that is busy with other things the processor's seconds say more.
        mine = f"{us:.1f} s, CPU {median(used):.0f} s"
        others = f"{them:.1f} s, CPU {median(spent):.0f} s"
        self.rows.append(Row("cold, to bare commands", mine, others, us / them, COLD, "×"))
        ready = " with the ready kernel" if self.options.ready else ""
        aim = NOTHING_S[self.options.ready]
        self.rows.append(Row(f"from nothing{ready}", f"{us:.1f} s", "", us, aim, " s"))

    def memory(self) -> None:
        """What a node really uses, and what the runs used so far."""
        done = self.lab.run("deploy.py", changed=0)
        peak = max([done.own_bytes, *self.run_bytes]) / 1e6
        nodes: Any = self.lab.status()["nodes"]
        used = nodes[0]["memory_bytes"] / 1e6
        self.rows.append(Row("peak memory of a run", f"{peak:.0f} MB", "", peak, RUN_MB, " MB"))
        self.rows.append(Row("memory of a node", f"{used:.0f} MB", "", used, NODE_MB, " MB"))

    def noop(self) -> None:
        """Nothing to do: umlaan's run against the playbook, in turns."""
        program = environment(self.folder)
        say("python3 into node1: Ansible's modules need it there")
        self.lab.run("tasks/down.py", verdict="down")
        self.lab.exec("@uml/node1", "apt-get update -q && apt-get install -q -y python3")
        self.lab.run("deploy.py")
        playbook = Ansible(self.lab, program)
        # It brings its list of sums; from then on it has nothing to do either.
        playbook.run()
        ours, theirs, count = [], [], 0
        for number in range(self.options.repeats):
            say(f"nothing to do, {number + 1} of {self.options.repeats}")
            ours.append(self.lab.run("deploy.py", changed=0).seconds)
            done = playbook.settled()
            theirs.append(done.seconds)
            count = tasks(done)
        us, them = median(ours), median(theirs)
        self.rows.append(
            Row(
                "nothing to do, to Ansible",
                f"{us:.2f} s ({min(ours):.2f}–{max(ours):.2f})",
                f"{them:.1f} s, {count} tasks",
                them / us,
                FASTER,
                "×",
                at_least=True,
            )
        )

    def warm(self) -> None:
        """git clone, make deploy: the virtual environment is made anew, the caches are warm."""
        seconds = []
        # The first one fills pip's cache and is not counted.
        for number in range(self.options.warm + 1):
            clone = self.folder / "clone"
            shutil.rmtree(clone, ignore_errors=True)
            say(f"warm caches, from a clone, {number} of {self.options.warm}")
            env = {"PYINFRA_PROGRESS": "off", "PIP_CACHE_DIR": f"{self.folder}/pip"}
            # Under make itself the inner make would print a line of its own after the verdict.
            env |= {"MAKELEVEL": "", "MAKEFLAGS": ""}
            script = f"git clone -q {REPO} {clone} && cd {clone} && make deploy"
            words = ["sh", "-ec", f"{script} ARGS='{' '.join(self.lab.words)}'"]
            done = timed(words, "/", env)
            if not done.output.rstrip().endswith("verdict=up"):
                raise Failed(f"make deploy: {done.output[-500:]}")
            seconds += [done.seconds] if number else []
            self.lab.destroy()
            shutil.rmtree(clone, ignore_errors=True)
        us = median(seconds)
        self.rows.append(Row("clone to verified, warm", f"{us:.1f} s", "", us, WARM_S, " s"))

    def shown(self) -> None:
        """One screen."""
        table = Table(title=f"umlaan, {load()} at the end", title_justify="left")
        for name in ("", "umlaan", "the other", "found", "aim", "verdict"):
            table.add_column(name, no_wrap=True)
        for row in self.rows:
            table.add_row(*row.cells())
        Console(width=110).print(table)

    def clear(self) -> None:
        """Nothing is left, but for what --keep asks for."""
        if (self.folder / "state").exists():
            self.lab.destroy()
        if not self.options.keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--folder", default="/var/tmp/umlaan-bench", help="a short path, its name the lab's"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=5, help="of the run with nothing to do")
    parser.add_argument("--cold", type=int, default=1, help="repeats of the run from nothing")
    parser.add_argument("--warm", type=int, default=3, help="repeats of clone to verified")
    parser.add_argument("--ready", action="store_true", help="Debian's ready kernel: minutes less")
    parser.add_argument("--keep", action="store_true", help="leave the folder and its caches")
    parser.add_argument("--json", help="write the figures to this file, too")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """0 where all was measured, reached or not; 1 where something could not be."""
    options = arguments(argv)
    if os.geteuid():
        print("bench: it makes networks and roots: run it as root", file=sys.stderr)
        return 1
    subprocess.run([str(REPO / "bin/test-tools"), "linux-source-6.1"], check=True)
    bench = Bench(options)
    began, code = load(), 0
    narrow_umask()
    bench.folder.mkdir(parents=True, exist_ok=True)
    try:
        # Root runs what it puts there, and anybody may have made that name first.
        trust.must_be_own(str(bench.folder))
        bench.all()
    except (Failed, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        code = 1
    finally:
        bench.clear()
    print(f"at the beginning: {began}")
    bench.shown()
    if options.json:
        rows = [{**vars(row), "reached": row.reached} for row in bench.rows]
        Path(options.json).write_text(json.dumps({"began": began, "rows": rows}, indent=1) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
