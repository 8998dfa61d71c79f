"""The nodes' roots: made ones as copies of a base image, a user's own only looked at and checked.

``root state SPEC`` prints what is there; ``root base SPEC`` makes the base images in the cache;
``root make SPEC NODE`` copies one (reflink or sparse); ``root check SPEC NODE`` lets e2fsck repair
what is safe. A root that exists is never made again: it holds what its user put there. SPEC is
JSON from ``umlaan.plan.root.spec``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
from typing import Any

from umlaan.agent import baseimage, extfs, rootlock
from umlaan.agent.atomic import new_file, sweep
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import make_folder, read_json, write_json
from umlaan.agent.visible import word

_CORRECTED = 1
_UNCORRECTED = 4


def state(spec: dict[str, Any]) -> dict[str, Any]:
    """{"bases": {key: ready}, "nodes": {name: row}}; a row says what stands at the root's path.

    kind (missing, image, device, other), key and made_from (of a made root's recipe), file_system
    (umlaan.agent.extfs.look), type (what it holds instead), writable, system (it has an init; None
    where that cannot be told).
    """
    answer: dict[str, Any] = {"bases": {}, "nodes": {}}
    for name, node in spec["nodes"].items():
        row = {"kind": _kind(node["path"]), "made_from": None, "key": None}
        if node["made"] is not None:
            row["key"] = baseimage.key_of(node["made"])
            answer["bases"][row["key"]] = baseimage.is_ready(spec["cache"], node["made"])
            row["made_from"] = (read_json(f"{node['path']}.json") or {}).get("key")
        if row["kind"] in ("image", "device"):
            row.update(_inside(node["path"], node["made"] is None))
        answer["nodes"][name] = row
    return answer


def _kind(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "missing"
    if stat.S_ISBLK(mode):
        return "device"
    return "image" if stat.S_ISREG(mode) else "other"


def _inside(path: str, users: bool) -> dict[str, Any]:
    try:
        found = extfs.look(path)
    except OSError as error:
        return {"file_system": None, "type": f"nothing that can be read ({error.strerror})"}
    row: dict[str, Any] = {"file_system": found, "writable": extfs.writable(path)}
    if found is None:
        row["type"] = extfs.type_of(path)
    elif users:
        row["system"] = extfs.holds(path, "/sbin/init")
    return row


def base_path(spec: dict[str, Any], made: dict[str, Any]) -> str:
    """The folder of a base image in the cache."""
    return baseimage.folder(spec["cache"], made)


def unaside(path: str) -> None:
    """Give a root its name back that an earlier umlaan's killed restore left aside."""
    if not os.path.lexists(path) and os.path.lexists(f"{path}.aside"):
        os.rename(f"{path}.aside", path)


def make(spec: dict[str, Any], name: str) -> None:
    """A node's own copy of the base image, beside and renamed; one that exists stays."""
    node = spec["nodes"][name]
    path = node["path"]
    unaside(path)
    if os.path.lexists(path):
        return
    made = node["made"]
    if not baseimage.is_ready(spec["cache"], made):
        raise SystemExit(f"{name}: its base image is not there; the base image's stage makes it")
    folder = os.path.dirname(path)
    make_folder(folder, 0o700)
    source = f"{base_path(spec, made)}/root.ext4"
    # What a killed copy left takes the very room that the next one needs.
    sweep(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.new")
    need, info = os.stat(source).st_blocks * 512, os.statvfs(folder)
    free = info.f_bavail * info.f_frsize
    if free < need:
        raise SystemExit(
            f"{name}: its root takes {need / 1e6:.0f} MB and {folder} has {free / 1e6:.0f} MB free"
        )
    # It will hold the guest's host key.
    with new_file(path, 0o600) as beside:
        baseimage.call(["cp", "--reflink=auto", "--sparse=always", source, beside])
        write_json(f"{path}.json", {"key": baseimage.key_of(made), "made": made})


def check(spec: dict[str, Any], name: str) -> None:
    """e2fsck -p on a root that nobody uses. SystemExit where a person has to decide."""
    path = spec["nodes"][name]["path"]
    lock = rootlock.take(path, f"e2fsck of {name}'s root", wait=20.0)
    try:
        rootlock.wait_free(path, 5.0)
        done = extfs.repair(path)
    finally:
        os.close(lock)
    said = f"{done.output}{done.errors}".strip()
    print(said, flush=True)
    if done.code >= _UNCORRECTED:
        last = done.fault or (word(said.splitlines()[-1]) if said else "it said nothing")
        raise SystemExit(
            f"{name}: e2fsck -p {path}: exit code {done.code}: {last}\n"
            f"umlaan repairs only what is safe without asking; run e2fsck {path} by hand"
        )
    if done.code & _CORRECTED:
        print(f"{name}: file system errors of {path} corrected", flush=True)


def main(argv: list[str]) -> int:
    """The ``root`` verb: state, base, make, check."""
    verb, spec = argv[0], json.loads(argv[1])
    try:
        if verb == "state":
            print(json.dumps(state(spec)))
        elif verb == "base":
            # A run that failed elsewhere ends this one, too: what was unpacked in memory goes.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            for node in spec["nodes"].values():
                if node["made"] is not None and _kind(node["path"]) == "missing":
                    baseimage.make(spec["cache"], node["made"])
        elif verb == "check":
            check(spec, argv[2])
        else:
            make(spec, argv[2])
    except (BuildError, TimeoutError, rootlock.RootBusy, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
