"""Host kernels of a lab that is destroyed: ``boot-away left WORD`` prints what of ours is there.

``boot-away do WORD`` removes it: images, modules, initramfs, entries, and what made grub boot its
saved default. A kernel that runs is never taken away.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

from umlaan.agent import mark
from umlaan.agent.boot import before_path, remove, stamps_of, state
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import read_json
from umlaan.agent.grub import environment, grub, list_of, list_path, menu
from umlaan.agent.machine import at, read, run, running
from umlaan.agent.spec import decode


def left(spec: dict[str, Any]) -> dict[str, Any]:
    """What of ours stands on the machine: releases, files, and the one of them that runs."""
    releases = [stamp["release"] for stamp in stamps_of(spec).values()]
    now = running(spec)
    files = [path for path in spec["files"] if list_of(read(at(spec, path))) == list_path(spec)]
    # grub's own file does not name the list: it goes with the script that does.
    files += [path for path in spec["files"] if path.startswith("/etc/default/") and files]
    there = os.path.isdir(f"{spec['state_dir']}/host-kernel")
    return {
        "releases": releases,
        "files": [path for path in files if os.path.exists(at(spec, path))],
        "running": now["release"] if now["release"] in releases else None,
        "state": there,
    }


def away(spec: dict[str, Any]) -> None:
    """Take kernels and entries of ours away, the menu's default back. BuildError if one runs."""
    found = left(spec)
    if found["running"]:
        raise BuildError(f"{found['running']} runs: boot another kernel first")
    ours = [line.split()[0] for line in read(list_path(spec)).splitlines() if line.split()]
    # Its entries alone are left where an earlier destroy was cut off, or update-grub failed.
    offered = bool(found["files"]) or any(entry in menu(spec) for entry in ours)
    if offered:
        default_back(spec, ours)
        if environment(spec).get("next_entry") in ours:
            run(["grub-editenv", at(spec, "/boot/grub/grubenv"), "unset", "next_entry"])
        # The script last: by it alone the next destroy knows that grub's own file is ours.
        for path in reversed(found["files"]):
            os.unlink(at(spec, path))
    for path, stamp in stamps_of(spec).items():
        remove(spec, path, stamp["release"])
    if offered and grub(spec) is None:
        run(["update-grub"])
    shutil.rmtree(f"{spec['state_dir']}/host-kernel", ignore_errors=True)
    # The rest went with an earlier destroy, while the kernel still ran.
    mark.away(spec["state_dir"])


def default_back(spec: dict[str, Any], ours: list[str]) -> None:
    """grub's saved default as it was before the lab, unless somebody has set another one since.

    The running kernel's entry in place of one of ours, where that is not known or gone.
    """
    found = state(spec)
    now, back = found["saved"], found["fallback"]
    before = read_json(before_path(spec))
    if isinstance(before, dict) and now in (*ours, *before["set"]):
        if not before["saved_entry"]:
            run(["grub-editenv", at(spec, "/boot/grub/grubenv"), "unset", "saved_entry"])
            return
        if before["saved_entry"] in menu(spec):
            run(["grub-set-default", before["saved_entry"]])
            return
    if now in ours and back:
        run(["grub-set-default", back])


def main(argv: list[str]) -> int:
    """The ``boot-away`` verb."""
    spec = decode(argv[1])
    if argv[0] == "left":
        print(json.dumps(left(spec)))
        return 0
    try:
        away(spec)
    except (BuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
