"""``remove SPEC``: what is left of a lab in its state folder, and its removal.

Only what umlaan makes there is named, file by file or, where a folder is wholly its own, as that
folder. All else stays, the folders around it as well, and is said. ``list`` prints what is there,
``strays`` the nodes that run without being in the inventory, ``do`` removes.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any, Literal

from umlaan.agent import atomic, mark, node
from umlaan.agent.files import mounts_below

# What a name is: a file, a folder that is umlaan's with all in it, or one that holds what is named.
Own = Literal["file", "whole"] | dict[str, Any]
# A file on its way to its name, as a killed run leaves it.
_NEW = r"(\.new[^/]*|\.old|\.aside|\.umlaan-new)?"
# An artifact on its way from a builder, for a lab.
_SENT = r"\.[^/]+\.tar\.gz"
_NODE = "node[0-9]+"
_KEYS = rf"(id_ed25519|{_NODE}_host_ed25519_key)(\.new)?(\.pub)?"
_LOGS = (
    r"(packages|base-image|dvs-build|dvs-[a-z0-9-]+|(kernel|module|buildroot|build-root)"
    r"-[a-z0-9._-]+|host-kernel-install)\.log(\.[0-9]+)?"
)
TREE: dict[str, Own] = {
    "nodes": {
        _NODE: {
            r"root\.ext4(\.json)?" + _NEW: "file",
            r"(launch|at-boot)\.json" + _NEW: "file",
            r"(launch\.lock|console\.log(\.1)?|console\.sock|ssh(\.[A-Za-z0-9]{16})?)": "file",
            "uml": "whole",
        }
    },
    "kernels": {
        r"[0-9a-f]{12}" + _NEW: "whole",
        r"[0-9a-f]{12}\.tar\.gz|\.[0-9a-f]{12}" + _SENT: "file",
    },
    "modules": {
        r"[a-z0-9-]+(\.(new|old|before))?": "whole",
        r"[a-z0-9-]+(\.(placed|loaded|armed))?\.json" + _NEW: "file",
        r"[a-z0-9-]+\.tar\.gz|\.[a-z0-9-]+" + _SENT: "file",
    },
    "dvs": {
        r"(ioctl|ipc)": "whole",
        r"(ioctl|ipc)\.stamp\.json" + _NEW: "file",
        r"dvs\.tar\.gz" + _NEW: "file",
    },
    "services": {
        r"(up|keep|inittab|dc[0-9]+\.cfg)": "file",
        r"(dvs-proxy-node[0-9]+|dvs-join|\.new\.[A-Za-z0-9]+)": "whole",
    },
    "ssh": {_KEYS: "file", "known_hosts" + _NEW: "file"},
    "log": {_LOGS: "file"},
    "run": "whole",
    "backup": {"etc": {"hosts" + _NEW: "file", "netns": {"[a-z0-9-]+": {"hosts" + _NEW: "file"}}}},
    "at-boot": {r"agent-[0-9a-f]{16}\.zip" + _NEW: "file"},
    r"network\.sh" + _NEW: "file",
}
# These stay when a lab goes: snapshots for good, the other until its kernel runs no longer.
STAYS = ("snapshots", "host-kernel")


def ours(folder: str, tree: dict[str, Own] | None = None) -> Iterator[str]:
    """The paths below a folder that destroy removes: files and whole folders, no link followed."""
    for name in sorted(_listed(folder)):
        path = f"{folder}/{name}"
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        own = _own(name, is_folder, tree or TREE)
        if isinstance(own, dict):
            if is_folder:
                yield from ours(path, own)
        elif own == ("whole" if is_folder else "file"):
            yield path


def _own(name: str, is_folder: bool, tree: dict[str, Own]) -> Own | None:
    """What a name is; what a killed writer left beside one of ours is ours, with all in it."""
    target = atomic.target_of(name)
    own = next((o for p, o in tree.items() if re.fullmatch(p, target or name)), None)
    if target is None or own is None:
        return own
    return "whole" if is_folder else "file"


def holders(folder: str, tree: dict[str, Own] | None = None) -> Iterator[str]:
    """The folders around those, the innermost first: they go where nothing else is in them."""
    for name in sorted(_listed(folder)):
        path = f"{folder}/{name}"
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        own = _own(name, is_folder, tree or TREE)
        if isinstance(own, dict) and is_folder:
            yield from holders(path, own)
            yield path


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def present(spec: dict[str, Any]) -> list[str]:
    """First names of what is to go; the mark goes last, with nothing of umlaan's left there."""
    folder = spec["state_dir"]
    paths = [*ours(folder), *(path for path in holders(folder) if not os.listdir(path))]
    found = dict.fromkeys(path.removeprefix(f"{folder}/").split("/")[0] for path in paths)
    return list(found) or ([mark.MARK] if _last(folder) else [])


def _last(folder: str) -> bool:
    """Whether nothing but the mark is left: with anything in it the folder is still this lab's."""
    return [name for name in _listed(folder) if not mark.NOTHING.fullmatch(name)] == [mark.MARK]


def theirs(folder: str, tree: dict[str, Own] | None = None) -> Iterator[str]:
    """What is no file of umlaan's, the outermost name of each."""
    for name in sorted(_listed(folder)):
        path = f"{folder}/{name}"
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        own = _own(name, is_folder, tree or TREE)
        if isinstance(own, dict) and is_folder:
            yield from theirs(path, own)
        elif own != ("whole" if is_folder else "file"):
            yield path


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
    """Remove what is ours, say what stays; exit code 1, naming it, where something is mounted."""
    folder = spec["state_dir"]
    mounted = mounts_below(folder)
    if mounted:
        print(f"{folder}: {', '.join(mounted)} is mounted; unmount it first, nothing was removed")
        return 1
    for path in list(ours(folder)):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            atomic.remove_tree(path)
        else:
            os.unlink(path)
    for path in list(holders(folder)):
        if not os.listdir(path):
            os.rmdir(path)
    kept = {f"{folder}/{name}" for name in (mark.MARK, *STAYS)}
    if left := [path for path in theirs(folder) if path not in kept]:
        print(f"left: {', '.join(left)}: umlaan did not make it", flush=True)
    mark.away(folder)
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
