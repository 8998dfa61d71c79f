"""The DVS's builds: what the agent is to build, and why it differs from what is there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from umlaan.model.dvs import Dvs
from umlaan.model.host import LabHost
from umlaan.model.hostkernel import HostModule
from umlaan.plan.toolchain import build_root


def spec(
    dvs: Dvs, host: LabHost, source: str, modules: Iterable[HostModule] = ()
) -> dict[str, Any]:
    """The agent's description of the builds; source is a path on the lab host.

    modules: the host's, whose files in the ioctl copy are theirs even where the tree has one.
    """
    buildroot = build_root(dvs.toolchain, host.cache_dir)
    bits: dict[str, str] = {"CC": "gcc -m32"} if dvs.bits == 32 and not buildroot else {}
    variants = {
        variant: [
            {
                "dir": step.dir,
                "targets": list(step.targets),
                "variables": {**bits, **step.make_variables(variant)},
                **({"command": step.command} if step.command else {}),
            }
            for step in dvs.steps
        ]
        for variant in dvs.variants
    }
    return {
        "source": source,
        "sha256": dvs.sha256,
        "exclude": list(dvs.exclude),
        "cache": host.cache_dir,
        "state": f"{host.state_dir}/dvs",
        "dest": dvs.dest,
        "variants": variants,
        "buildroot": buildroot,
        "cc": "gcc",
        "leave": {"ioctl": [name for module in modules for name in module.in_dvs]},
    }


def reasons(variant: str, row: dict[str, Any]) -> list[str]:
    """Why this variant is built or installed again; empty where nothing differs."""
    name = f"DVS {variant}"
    stamp, inputs = row["stamp"], row["inputs"]
    if stamp is None:
        return [f"{name}: build, it is not there yet"]
    if stamp != inputs:
        return [f"{name}: rebuild, {text}" for text in _differences(stamp, inputs, row)]
    found = []
    if row["drift"]:
        shown = ", ".join(row["drift"][:3])
        more = f" and {len(row['drift']) - 3} more" if len(row["drift"]) > 3 else ""
        found.append(f"{name}: install again, {shown}{more} differ from what was built")
    if "tarball_wanted" in row and row["tarball"] != row["tarball_wanted"]:
        what = "is missing" if row["tarball"] is None else "was changed"
        found.append(f"DVS tarball: write again, dvs.tar.gz {what}")
    return found


def _differences(stamp: dict[str, Any], inputs: dict[str, Any], row: dict[str, Any]) -> list[str]:
    texts = []
    if stamp["source"] != inputs["source"]:
        names = row["changed_files"]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        texts.append(f"source changed{': ' + shown if shown else ''}")
    if stamp["compiler"] != inputs["compiler"]:
        texts.append(f"compiler {stamp['compiler']} → {inputs['compiler']}")
    if stamp["steps"] != inputs["steps"]:
        texts.append("its make steps changed: " + ", ".join(_steps(stamp, inputs)))
    return texts


def _steps(stamp: dict[str, Any], inputs: dict[str, Any]) -> list[str]:
    old = {step["dir"]: step for step in stamp["steps"]}
    new = {step["dir"]: step for step in inputs["steps"]}
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return changed or ["their order"]
