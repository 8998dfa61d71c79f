"""Whose a state folder is: ``lab.json`` in it says the lab's name and an identity.

The mark is made only where there was nothing; without it, or with another lab's, every verb of the
agent refuses. Each is told lab and folder by its environment (``named``). ``mark state LAB FOLDER``
prints [kind, text] as JSON, ``mark make LAB FOLDER`` marks the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

from umlaan.agent import trust
from umlaan.agent.atomic import target_of
from umlaan.agent.files import fault_of, make_folder, read_json, write_atomic

MARK = "lab.json"
LAB, FOLDER = "UMLAAN_LAB", "UMLAAN_STATE_DIR"
VERSION = 1
REFUSED = 78
# These say themselves whose the folder is, or have nothing to do with it.
ANY_FOLDER = ("probe", "mark", "hash")
# What writes into the folder, by its first word where it has several; it marks a new one first.
_WRITES: dict[str, tuple[str, ...]] = {
    "at-boot": ("note", "place"),
    "boot": ("arm", "settle"),
    "bring": ("ready", "take"),
    "dvs": ("build", "install"),
    "dvsup": ("up", "write"),
    "host-kernel": ("install",),
    "kernel-build": (),
    "keys": ("make",),
    "module": ("build", "place", "arm", "load"),
    "network": ("put", "names"),
    "node-start": (),
    "remove": ("do",),
    "root": ("make",),
    "run": (),
    "snapshot": ("take", "restore"),
    "supervise": ("sync",),
}
# A mark on its way, and what mkfs leaves in a file system that is the folder.
NOTHING = re.compile(r"\.{1,2}lab\.json\..*|lost\+found")
_NODE = re.compile(r"node[0-9]+")

# own: marked; old: of an earlier umlaan, to be marked; new: nothing there yet.
Kind = Literal["own", "old", "new", "refused"]


def named(environment: MutableMapping[str, str]) -> tuple[str, str] | None:
    """(lab, state folder) that this call is told, taken out of the environment; None if none."""
    lab, folder = environment.pop(LAB, ""), environment.pop(FOLDER, "")
    return (lab, folder) if lab and folder else None


def refusal(argv: list[str], told: tuple[str, str] | None) -> str:
    """Why a verb may not work in the state folder that it was told; empty where it may.

    Others must not be able to put anything there, along its whole path.

    What writes there marks it first, where nothing was or an earlier umlaan's lab is.
    """
    if told is None or argv[0] in ANY_FOLDER:
        return ""
    if fault := trust.fault_of(told[1], shared=False):
        return f"state_dir: {told[1]}: {fault}; root runs what lies there"
    kind, text = standing(*told)
    if _writes(argv, told[1]) and kind in ("new", "old"):
        try:
            return make(*told)
        except OSError as error:
            return f"state_dir: {fault_of(error, told[1])}"
    return text


def _writes(argv: list[str], folder: str) -> bool:
    """Whether a verb writes into the state folder; an order for a builder's cache does not."""
    if argv[0] == "spec" and argv[1:]:
        return os.path.realpath(argv[1]).startswith(f"{os.path.realpath(folder)}/")
    first = _WRITES.get(argv[0])
    return first is not None and (not first or argv[1:2] != [] and argv[1] in first)


def standing(lab: str, folder: str) -> tuple[Kind, str]:
    """What a state folder is to a lab, and why it is refused. Reads only."""
    real = os.path.realpath(folder)
    try:
        names = [name for name in os.listdir(real) if not NOTHING.fullmatch(name)]
    except FileNotFoundError:
        return _new(lab, folder, real)
    except OSError as error:
        return "refused", f"state_dir: {folder}: {error.strerror}; set it to a folder"
    # A folder is not read at one moment: what came after the mark may be seen without it.
    if MARK in names or (names and os.path.lexists(f"{real}/{MARK}")):
        return _marked(lab, folder, f"{real}/{MARK}")
    if not names or (names == ["run"] and _only_parcels(f"{real}/run")):
        return _new(lab, folder, real)
    if of_earlier(lab, real, names):
        return "old", ""
    shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
    return "refused", (
        f"state_dir: {folder} holds {shown} and no {MARK}: it is no lab's folder, and nothing in "
        f"it is touched; set state_dir to a folder of the lab's own, for example {folder}/umlaan. "
        f"If an earlier umlaan made it for lab {lab}, write {json.dumps({'lab': lab})} into "
        f"{folder}/{MARK}"
    )


def _only_parcels(folder: str) -> bool:
    try:
        return all(name.startswith("parcel-") for name in os.listdir(folder))
    except OSError:
        return False


def _marked(lab: str, folder: str, path: str) -> tuple[Kind, str]:
    whose = owner(path)
    if whose == lab:
        return "own", ""
    if whose is None:
        return "refused", (
            f"state_dir: {folder}/{MARK} says no lab's name, or is not root's own file; if the "
            f"folder is lab {lab}'s, write {json.dumps({'lab': lab})} into it, as root"
        )
    return "refused", (
        f"state_dir: {folder} is lab {whose}'s ({MARK} in it says so); set state_dir to a folder "
        f"of lab {lab}'s own"
    )


def owner(path: str) -> str | None:
    """The lab that a mark names; None where it is none, or not a file of root's or of our own."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode) or info.st_uid not in (0, os.geteuid()):
        return None
    found = read_json(path)
    lab = found.get("lab") if isinstance(found, dict) else None
    return lab if isinstance(lab, str) and lab else None


def _new(lab: str, folder: str, real: str) -> tuple[Kind, str]:
    """Nothing there yet: it may be made, but in no other lab's folder."""
    above = os.path.dirname(real)
    while above != "/":
        whose = owner(f"{above}/{MARK}") or _key_of(above)
        if whose:
            return "refused", (
                f"state_dir: {folder} lies in {above}, the state folder of lab {whose}; set "
                "state_dir to a folder beside it"
            )
        above = os.path.dirname(above)
    return "new", ""


def of_earlier(lab: str, real: str, names: list[str]) -> bool:
    """Whether an earlier umlaan, which knew no mark, made this folder for this lab.

    Its key says the lab's name, the network's script as well, a node's order for the next boot name
    and folder; and what destroy left: snapshots, and the host kernel that still ran.
    """
    if _key_of(real) == lab or _script_of(real) == lab:
        return True
    for name in filter(_NODE.fullmatch, _listed(f"{real}/nodes")):
        order = read_json(f"{real}/nodes/{name}/at-boot.json")
        if isinstance(order, dict) and order.get("lab") == lab:
            return os.path.realpath(str(order.get("dir"))) == f"{real}/nodes/{name}"
    left = {"snapshots": _snapshots, "host-kernel": _host_kernel}
    return all(name in left and left[name](real) for name in names)


def _key_of(real: str) -> str | None:
    """The lab whose key stands in a folder, by the comment that umlaan gives it."""
    return _told(f"{real}/ssh/id_ed25519.pub", r"ssh-ed25519 \S+ umlaan ([a-z0-9-]+)\n?")


def _script_of(real: str) -> str | None:
    return _told(f"{real}/network.sh", r"#!/bin/sh\n# Made by umlaan for lab ([a-z0-9-]+): .*")


def _told(path: str, pattern: str) -> str | None:
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_uid not in (0, os.geteuid()):
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            match = re.fullmatch(pattern, file.read(65536), re.DOTALL)
    except OSError:
        return None
    return match[1] if match else None


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _snapshots(real: str) -> bool:
    """Only folders of nodes, with images and their stamps."""
    for name in _listed(f"{real}/snapshots"):
        rows = _listed(f"{real}/snapshots/{name}")
        if not _NODE.fullmatch(name) or not all(
            (target_of(r) or r).endswith((".ext4", ".json", ".new")) for r in rows
        ):
            return False
    return True


def _host_kernel(real: str) -> bool:
    spec = read_json(f"{real}/host-kernel/spec.json")
    return isinstance(spec, dict) and os.path.realpath(str(spec.get("state_dir"))) == real


def make(lab: str, folder: str) -> str:
    """Mark a folder that is new or an earlier umlaan's; the refusal in words, empty if it is ours.

    Two labs may want the same folder at this moment: the mark is linked to its place, so that only
    one of them finds none there.
    """
    kind, text = standing(lab, folder)
    if kind in ("own", "refused"):
        return text
    make_folder(folder)
    path = f"{os.path.realpath(folder)}/{MARK}"
    identity = os.urandom(16).hex()
    beside = f"{os.path.dirname(path)}/.{MARK}.{identity}"
    text = json.dumps({"lab": lab, "id": identity, "version": VERSION}, indent=1)
    write_atomic(beside, f"{text}\n".encode(), 0o600)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        os.unlink(beside)
    return standing(lab, folder)[1]


def away(folder: str) -> None:
    """The mark and its folder, where nothing else is left in it."""
    left = [name for name in _listed(folder) if not NOTHING.fullmatch(name)]
    if left not in ([], [MARK]):
        return
    with contextlib.suppress(OSError):
        if left:
            os.unlink(f"{folder}/{MARK}")
        os.rmdir(folder)


def main(argv: list[str]) -> int:
    """The ``mark`` verb."""
    verb, lab, folder = argv
    if verb == "state":
        print(json.dumps(standing(lab, folder)))
        return 0
    try:
        text = make(lab, folder)
    except OSError as error:
        text = f"state_dir: {fault_of(error, folder)}"
    if text:
        print(text, file=sys.stderr)
        return 1
    return 0


def summary(lab: str, folder: str) -> dict[str, Any]:
    """For the probe: what the folder is, and where it really is."""
    kind, text = standing(lab, folder)
    return {"kind": kind, "text": text, "real": os.path.realpath(folder)}
