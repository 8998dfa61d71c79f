"""A module outside the kernel's tree: what the agent is to build, test and place, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from umlaan.model.dvs import host_tree
from umlaan.model.host import LabHost
from umlaan.model.hostkernel import HostModule


def spec(
    module: HostModule, source: str, where: LabHost, cache: str, kernel: dict[str, Any], debug: int
) -> dict[str, Any]:
    """The agent's description of one module. kernel: the kernel's own spec where it is built."""
    return {
        "name": module.name,
        "file": module.file,
        "source": source,
        "targets": list(module.targets),
        "variables": dict(module.variables),
        "tests": list(module.tests),
        "places": list(module.places),
        "load": module.load,
        "unload": module.unload,
        "parameters": {k: v.format(debug=debug) for k, v in module.parameters.items()},
        "devices": dict(module.devices),
        "lab": where.lab,
        "state_dir": where.state_dir,
        "dvs": host_tree(where.state_dir),
        "cache": cache,
        "kernel": kernel,
    }


def build_reasons(name: str, found: dict[str, Any]) -> list[str]:
    """Why the module is to be built; empty where the one of this content is there."""
    if found["problem"]:
        return [f"module {name}: {found['problem']}"]
    if found["key"] is None:
        return [f"module {name}: build, its kernel is not built yet"]
    if found["cached"]:
        return []
    before = found["previous"]
    if before is None:
        return [f"module {name}: build, it is not there yet"]
    rows = [
        label
        for field, label in (
            ("kernel", f"kernel {before['release']} → {found['inputs']['release']}"),
            ("source", "source changed"),
            ("make", "make's variables or targets changed"),
        )
        if before["inputs"].get(field) != found["inputs"][field]
    ]
    return [f"module {name}: rebuild, {', '.join(rows) or 'its file is not whole'}"]


def place_reasons(name: str, key: str | None, found: dict[str, Any]) -> list[str]:
    """Why the module is to be tested and placed on the lab host; empty where it stands."""
    stamp = found["stamp"]
    if stamp is None or stamp["key"] != key or key is None:
        return [f"module {name}: test and place it, {'a new one' if stamp else 'none there yet'}"]
    return [f"module {name}: place it again, {row}" for row in found["problems"]]


def load_reasons(name: str, found: dict[str, Any]) -> list[str]:
    """Why the placed module is to be loaded, or to be loaded otherwise; empty where it is."""
    return [f"module {name}: {row}" for row in found["load"]]


def leaving(where: LabHost, keep: Iterable[str] = ()) -> dict[str, Any]:
    """The agent's description of what a destroyed lab leaves of modules, but those of these names.

    A lab that goes on keeps those which its data names.
    """
    return {"state_dir": where.state_dir, "lab": where.lab, "keep": sorted(keep)}
