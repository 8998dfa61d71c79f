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


def refusal(node: Node, row: dict[str, Any]) -> str | None:
    """Why a root that the user named cannot be used; None if it can."""
    if node.root.device is None:
        if row["kind"] == "other":
            return f"{node.name}: {node.root_path} is neither a file nor a device"
        return None
    if row["kind"] == "missing":
        return f"root: {node.root_path} of {node.name} is not there; umlaan never makes a device"
    if row["kind"] == "other":
        return f"root: {node.root_path} of {node.name} is neither a partition nor an image"
    kind = row.get("type", "")
    if kind not in ("ext2", "ext3", "ext4"):
        return (
            f"root: {node.root_path} of {node.name} holds {kind or 'no file system'}, not ext4; "
            "is it the right partition? umlaan never formats one"
        )
    return None


def notice(node: Node, row: dict[str, Any]) -> str | None:
    """A made root whose recipe changed since: it is kept, with what its user has put there."""
    if row["made_from"] and row["key"] and row["made_from"] != row["key"]:
        return (
            f"{node.name}: root made from an earlier recipe (root.made); kept with its content; "
            f"remove {node.root_path} to have it made anew"
        )
    return None
