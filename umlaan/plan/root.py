"""Roots: what the agent is asked, and what keeps a root from being one."""

from __future__ import annotations

from typing import Any

from umlaan.model.base import size_bytes
from umlaan.model.host import LabHost
from umlaan.model.node import Node


def spec(host: LabHost, nodes: tuple[Node, ...]) -> dict[str, Any]:
    """The agent's description of these nodes' roots."""
    return {
        "cache": host.cache_dir,
        "nodes": {node.name: {"path": node.root_path, "made": _made(node)} for node in nodes},
    }


def _made(node: Node) -> dict[str, Any] | None:
    made = node.root.made
    if made is None:
        return None
    return {
        "suite": made.suite,
        "arch": made.arch,
        "mirror": made.mirror,
        "packages": list(made.packages),
        "bytes": size_bytes(made.size),
    }


def base_reasons(found: dict[str, Any] | None) -> list[str]:
    """Which base images must be made before the nodes' roots can be."""
    if found is None:
        return ["base image: make, it is not there yet"]
    wanted = {
        row["key"]: name
        for name, row in found["nodes"].items()
        if row["key"] and row["kind"] == "missing"
    }
    return [
        f"base image: make, {name} needs it and it is not there yet"
        for key, name in wanted.items()
        if not found["bases"][key]
    ]


def refusal(node: Node, row: dict[str, Any], user: str | None = None) -> str | None:
    """Why what stands at a root's path cannot be one; None if it can, or is to be made.

    user: who uses it now, where the node itself is down.
    """
    root = f"root: {node.root_path} of {node.name}"
    theirs = node.root.made is None
    if row["kind"] == "missing":
        return f"{root} is not there; umlaan never makes a device" if theirs else None
    if row["kind"] == "other":
        return f"{root} is neither a partition nor an image"
    found = row.get("file_system")
    if found is None:
        wrong = f"{root} holds {row.get('type') or 'no file system'}, not ext4"
        if theirs:
            return f"{wrong}; is it the right partition? umlaan never formats one"
        return f"{wrong}; remove it to have it made anew"
    if found["bytes"] > found["size"]:
        return (
            f"{root} is cut off: its file system spans {found['bytes'] >> 20} MiB and there are "
            f"{found['size'] >> 20} MiB; " + ("copy it anew" if theirs else "remove it")
        )
    if not row["writable"]:
        return f"{root} is write-protected, and a guest writes to its root"
    if theirs and row.get("system") is False:
        return f"{root} holds no system (no /sbin/init); is it the right partition?"
    if user:
        return f"{root} is in use by {user}; nothing is done to it until it is free"
    return None


def check_reason(node: Node, row: dict[str, Any]) -> str | None:
    """Why e2fsck must look at a root before it is mounted; a journal is replayed by the mount."""
    state = (row.get("file_system") or {}).get("state")
    if state == "errors":
        return f"{node.name}: e2fsck -p {node.root_path}, its file system has noted errors"
    if state == "unclean":
        return f"{node.name}: e2fsck -p {node.root_path}, it was not unmounted and has no journal"
    return None


def notice(node: Node, row: dict[str, Any]) -> str | None:
    """A made root whose recipe changed since: it is kept, with what its user has put there."""
    if row["made_from"] and row["key"] and row["made_from"] != row["key"]:
        return (
            f"{node.name}: root made from an earlier recipe (root.made); kept with its content; "
            f"remove {node.root_path} to have it made anew"
        )
    return None
