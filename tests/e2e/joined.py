"""Two network namespaces joined by a veth, the sample DVS up in both: what a runner measures."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from tests.unit.sample_dvs import build, copy_tree
from umlaan.measure.bench import Bench, Peer
from umlaan.measure.cases import Place, plan
from umlaan.measure.ledger import End, Kernel
from umlaan.measure.programs import Tree
from umlaan.measure.runner import measure_case
from umlaan.measure.sides import LocalSide
from umlaan.measure.transfers import clean
from umlaan.model.dvs import Dvs, Programs
from umlaan.model.measure import Measure

SMALL = {
    "repeats": 3,
    "message_count": 20,
    "copy_sizes": ("1K", "64K"),
    "copy_count": 5,
    "buffers": ("64K",),
    "file_size": "3000001",
    "ping_count": 5,
    "timeout": 10,
    "start_timeout": 5,
}
PREFIX = f"umlm{os.getpid() % 100000}"
ADDRESS = {0: "10.217.0.1", 1: "10.217.0.2"}


def sh(*words: str, check: bool = True) -> str:
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def namespace(number: int) -> str:
    return f"{PREFIX}-{number}"


@contextmanager
def joined():
    """Both namespaces, away at the end whatever happened."""
    for number in (0, 1):
        sh("ip", "netns", "add", namespace(number))
    try:
        sh(
            *("ip", "-n", namespace(0), "link", "add", "mlink0", "type", "veth"),
            *("peer", "name", "mlink0", "netns", namespace(1)),
        )
        for number in (0, 1):
            ip = ("ip", "-n", namespace(number))
            sh(*ip, "addr", "add", f"{ADDRESS[number]}/24", "dev", "mlink0")
            for link in ("lo", "mlink0"):
                sh(*ip, "link", "set", link, "up")
        yield
    finally:
        for number in (0, 1):
            sh("ip", "netns", "del", namespace(number), check=False)


@contextmanager
def dvs_up(base: Path):
    """Both nodes' trees, DVS and DC up; node0's programs enter its DC by nsenter."""
    built = copy_tree(base / "tree")
    build(built, "ioctl", "-O1")
    found = {}
    try:
        for number in (0, 1):
            dest, state = base / f"node{number}", base / f"state{number}"
            shutil.copytree(built, dest)
            environment = {**os.environ, **environ(str(state))}
            inside = ["ip", "netns", "exec", namespace(number)]
            for command in (f"./test_dvs_init -n {number}", f"./test_dc_init -d 0 -o {dest}"):
                subprocess.run(
                    [*inside, *command.split()], cwd=dest / "dvk-tests", env=environment, check=True
                )
            pid = int((dest / "DC0.sh").read_text().split("DC0=")[1].split()[0])
            found[number] = Tree(str(dest), str(state), dc_pid=pid, nsenter=number == 0)
        yield found
    finally:
        for number, tree in found.items():
            subprocess.run(
                ["ip", "netns", "exec", namespace(number), "./test_dc_init", "-e", "-d", "0"],
                cwd=f"{tree.dest}/dvk-tests",
                env={**os.environ, **environ(tree.state)},
                check=False,
            )


def environ(state: str) -> dict[str, str]:
    return {
        "DVS_STATE": state,
        "DVS_TIMEOUT": "5",
        **{f"DVS_NODE_ADDR_{number}": ADDRESS[number] for number in ADDRESS},
    }


@contextmanager
def measuring(trees: dict[int, Tree], temporary: Path):
    """A bench over both trees; what its test leaves behind, in TMPDIR too, is a failure."""
    peers = {}
    for number, tree in trees.items():
        end = End(
            node=number,
            name=f"node{number}",
            place="host",
            kernel=Kernel(release=os.uname().release),
        )
        side = LocalSide(f"node{number}", namespace(number))
        peers[number] = Peer(side, end, ADDRESS[number], tree)
    programs = Programs(environment=environ("{state}"))
    made = Bench(
        Measure(**SMALL), Dvs(programs=programs), peers, run="test", lab="netns", host="here"
    )
    yield made
    clean(made)
    for number, tree in trees.items():
        assert bound(tree) == [], f"node{number} has endpoints left bound"
    left = list(temporary.glob("umlaan-measure.*"))
    assert not left, left
    for tree in trees.values():
        left = list(Path(tree.dest).glob("dvk-proxies/test/m3ftp/umlaan-*"))
        assert not left, left


def bound(tree: Tree) -> list[str]:
    return Path(tree.state, "DC0/procs").read_text().splitlines()[1:]


def rows(bench: Bench, **changes):
    measure = bench.measure.model_copy(update=changes)
    bench.measure = measure
    cases = plan([Place(0, "host"), Place(1, "uml")], measure).cases
    return [measure_case(bench, case) for case in cases]
