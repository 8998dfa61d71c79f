"""Bounds a node's memory and processes where the lab host has cgroups; nothing is said without.

Under systemd the node's scope does it; elsewhere a group of the node's own, of version 2 or 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from typing import Any

ROOT = "/sys/fs/cgroup"
# Each process of the guest's is one of the lab host's.
PROCESSES = 4096
# Page tables, the kernel's own program and what the host's kernel keeps for each process.
OVERHEAD = 256 << 20


def memory_of(order: dict[str, Any]) -> int:
    """Bytes that a node may take in all: half as much again as its guest has, and the UML's own."""
    return int(order.get("mem") or 0) * 3 // 2 + OVERHEAD


def properties(order: dict[str, Any]) -> list[str]:
    """The same bounds as words for systemd-run."""
    return [f"--property=MemoryMax={memory_of(order)}", f"--property=TasksMax={PROCESSES}"]


def _name(order: dict[str, Any]) -> str:
    # Its folder tells it from another lab's node of the same name.
    return f"umlaan-{order['name']}-{hashlib.sha256(order['dir'].encode()).hexdigest()[:8]}"


def _hierarchies() -> list[tuple[str, dict[str, str]]]:
    """(folder, {what it bounds: the file that does}) of each cgroup tree that can bound a node."""
    if os.path.exists(f"{ROOT}/cgroup.controllers"):
        return [(ROOT, {"memory": "memory.max", "pids": "pids.max"})]
    trees = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
    return [(f"{ROOT}/{kind}", {kind: file}) for kind, file in trees.items()]


def folders(order: dict[str, Any]) -> list[str]:
    """The node's own groups, there or not."""
    return [f"{tree}/{_name(order)}" for tree, _ in _hierarchies()]


def make(order: dict[str, Any]) -> list[str]:
    """Make the node's groups with their bounds; the files that a process joins them by."""
    bounds = {"memory": memory_of(order), "pids": PROCESSES}
    joined = []
    for tree, files in _hierarchies():
        own = f"{tree}/{_name(order)}"
        # Read-only, or not delegated to this container: the node runs without a bound.
        with contextlib.suppress(OSError):
            if tree == ROOT:
                _write(f"{tree}/cgroup.subtree_control", "+memory +pids")
            if not os.path.exists(f"{tree}/cgroup.procs"):
                continue
            os.makedirs(own, exist_ok=True)
            for kind, file in files.items():
                _write(f"{own}/{file}", str(bounds[kind]))
            joined.append(f"{own}/cgroup.procs")
    return joined


def join(files: list[str]) -> None:
    """Put this process into groups; its children follow."""
    for file in files:
        with contextlib.suppress(OSError):
            _write(file, "0")


def of(pid: int) -> list[str]:
    """The groups of a node's own, or its scope, that a process is in."""
    found = []
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        for line in file:
            _, kind, path = line.rstrip("\n").split(":", 2)
            if os.path.basename(path).startswith("umlaan-"):
                tree = kind.removeprefix("name=")
                found += [f"{ROOT}/{tree}{path}" if tree else f"{ROOT}{path}"]
    return found


def pids(groups: list[str]) -> set[int]:
    """The processes in groups: what a process calls itself, or closes, does not take it out."""
    found: set[int] = set()
    for group in groups:
        with contextlib.suppress(OSError), open(f"{group}/cgroup.procs", encoding="ascii") as file:
            found |= {int(line) for line in file}
    return found


def leave(order: dict[str, Any]) -> None:
    """Remove the node's groups; a process that was just killed takes a moment to leave one."""
    for own in folders(order):
        for _ in range(20):
            try:
                os.rmdir(own)
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.01)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
