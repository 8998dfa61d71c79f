"""``remove SPEC``: what is left of a lab in its state folder, and its removal.

Only folders that umlaan makes are named; the state folder itself goes when nothing else is in it,
so a file that a user put there survives. ``list`` prints what is there, ``strays`` the nodes that
run without being in the inventory, ``do`` removes.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from typing import Any

from umlaan.agent import node
from umlaan.agent.files import mounts_below

OURS = ("nodes", "kernels", "dvs", "ssh", "log", "run", "toolchain", "backup", "at-boot", "modules")


def present(spec: dict[str, Any]) -> list[str]:
    """Names of ours that are there, below the state folder."""
    folder = spec["state_dir"]
    return [name for name in (*OURS, *spec.get("files", [])) if os.path.lexists(f"{folder}/{name}")]


def strays(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes that still run although the inventory no longer names them, as node-stop's orders."""
    folder = f"{spec['state_dir']}/nodes"
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found: list[dict[str, Any]] = []
    for name in names:
        record = node.read_record(f"{folder}/{name}")
        if name in spec["known"] or record is None or not node.running(record):
            continue
        disks = [word for word in record["argv"] if word.startswith("ubda=")]
        root = disks[0].removeprefix("ubda=") if disks else f"{folder}/{name}/root.ext4"
        row = {"name": name, "dir": f"{folder}/{name}", "umid": name, "root": root}
        found.append({**row, "forget": True})
    return found


def remove(spec: dict[str, Any]) -> int:
    """Remove what is ours; exit code 1, naming it, where something is mounted there."""
    folder = spec["state_dir"]
    mounted = mounts_below(folder)
    if mounted:
        print(f"{folder}: {', '.join(mounted)} is mounted; unmount it first, nothing was removed")
        return 1
    for name in present(spec):
        path = f"{folder}/{name}"
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    if os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)
    return 0


def main(argv: list[str]) -> int:
    """The ``remove`` verb."""
    spec = json.loads(argv[1])
    if argv[0] == "do":
        try:
            return remove(spec)
        except OSError as error:
            print(f"not all was removed: {error}", file=sys.stderr)
            return 1
    print(json.dumps(strays(spec) if argv[0] == "strays" else present(spec)))
    return 0
