"""The plan of a run: which test, between which nodes, in which direction, with what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from umlaan.measure.ledger import Parameters
from umlaan.model.base import size_bytes
from umlaan.model.measure import Measure, TestName

MIN_BLOCKS = 10


@dataclass(frozen=True)
class Place:
    """A node that takes part: its number, and whether it is the lab host or a UML node."""

    number: int
    place: Literal["host", "uml"]

    @property
    def name(self) -> str:
        """node0, node1, …"""
        return f"node{self.number}"


@dataclass(frozen=True)
class Case:
    """One row to come: a test in one direction with one set of parameters."""

    test: TestName
    server: Place
    client: Place
    parameters: Parameters
    repeats: int
    warmup: int

    @property
    def label(self) -> str:
        """For progress and messages: what runs, and from whom to whom."""
        return f"{self.test} {described(self.parameters)}, {self.client.name} → {self.server.name}"


@dataclass(frozen=True)
class Plan:
    """The cases of a run in order, and what was left out, each with its reason."""

    cases: tuple[Case, ...]
    left_out: tuple[str, ...]


def plan(nodes: Iterable[Place], measure: Measure) -> Plan:
    """Every pair of nodes, each as server and as client. ValueError with fewer than two nodes."""
    places = sorted(nodes, key=lambda node: node.number)
    if len({place.number for place in places}) < 2:
        raise ValueError("a measurement needs two nodes or more that are up")
    cases: list[Case] = []
    left_out: list[str] = []
    for one, other in combinations(places, 2):
        for server, client in ((one, other), (other, one)):
            for test in measure.tests:
                reason = _impossible(test, server, client, measure)
                if reason:
                    left_out.append(f"{test}, {client.name} → {server.name}: {reason}")
                    continue
                cases += [
                    Case(test, server, client, parameters, measure.repeats, measure.warmup)
                    for parameters in _parameters(test, measure)
                ]
    return Plan(tuple(cases), tuple(left_out))


def _impossible(test: TestName, server: Place, client: Place, measure: Measure) -> str | None:
    built = measure.programs.loop_nodes
    here = (server.number, client.number)
    if test in ("message", "copy") and built is not None and here not in built:
        known = " or ".join(f"server node{a}, client node{b}" for a, b in built)
        return f"the loop programs are compiled for {known or 'no pair'}"
    if test.startswith("scp") and server.place == "host":
        return "the lab host offers its nodes no ssh server"
    return None


def _parameters(test: TestName, measure: Measure) -> Sequence[Parameters]:
    file = size_bytes(measure.file_size)
    if test == "ping":
        return [Parameters(size=measure.ping_size, count=measure.ping_count)]
    if test == "message":
        return [Parameters(count=measure.message_count, children=measure.children)]
    if test == "copy":
        return [
            Parameters(size=size, count=blocks(size, measure), children=measure.children)
            for size in map(size_bytes, measure.copy_sizes)
        ]
    if test.startswith("m3ftp"):
        return [Parameters(buffer=size_bytes(text), file=file) for text in measure.buffers]
    return [Parameters(file=file)]


def blocks(size: int, measure: Measure) -> int:
    """How many blocks of that size one repeat copies."""
    wanted = min(measure.copy_count, size_bytes(measure.copy_bytes) // size)
    return max(wanted, min(MIN_BLOCKS, measure.copy_count))


def human(size: int) -> str:
    """64 KiB, 1 MiB, 69.2 MB: powers of two where it is one, else decimal."""
    for unit, bits in (("MiB", 20), ("KiB", 10)):
        if size >= 1 << bits and size % (1 << bits) == 0:
            return f"{size >> bits} {unit}"
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size} B"


def described(parameters: Parameters) -> str:
    """The parameters as words: "64 KiB × 100", "file 69.2 MB, buffer 64 KiB"."""
    words = []
    if parameters.file:
        words.append(f"file {human(parameters.file)}")
    if parameters.buffer:
        words.append(f"buffer {human(parameters.buffer)}")
    if parameters.size:
        words.append(human(parameters.size))
    text = ", ".join(words)
    if parameters.count:
        text = f"{text} × {parameters.count}" if text else f"× {parameters.count}"
    if parameters.children and parameters.children > 1:
        text += f", {parameters.children} pairs"
    return text
