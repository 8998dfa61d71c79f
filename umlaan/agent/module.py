"""A module outside the kernel's tree, built against a kernel that was built here.

``module build-state WORD`` and ``module build FILE`` on the machine that builds; what the lab host
does with it is in ``umlaan.agent.placed``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

from umlaan.agent import (
    kernel_build,
    kernel_make,
    kernel_state,
    kmodules,
    loaded,
    machine,
    placed,
    trees,
)
from umlaan.agent.atomic import new_folder
from umlaan.agent.chamber import OUT, BuildError, say
from umlaan.agent.files import fault_of, locked, read_json, write_json
from umlaan.agent.index import hash_file
from umlaan.agent.placed import check_vermagic, fill
from umlaan.agent.spec import decode, load

MODULE = "/usr/src/module"


def build_state(spec: dict[str, Any]) -> dict[str, Any]:
    """inputs, key, previous stamp, whether the built file is there and whole."""
    kernel = read_json(f"{spec['kernel']['dir']}/stamp.json")
    source = spec["source"]
    problem = None
    digest = source
    if not source.startswith("kernel:"):
        if os.path.isdir(source):
            digest = trees.content_hash(source, spec["cache"])
        else:
            problem = f"source {source}: no such directory"
    if not isinstance(kernel, dict):
        return {"inputs": {}, "key": None, "previous": None, "cached": False, "problem": problem}
    inputs = {
        "kernel": kernel["key"],
        "release": kernel["release"],
        "source": digest,
        "make": [spec["targets"], spec["variables"]],
    }
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:24]
    stamp = read_json(f"{spec['dir']}/stamp.json")
    file = f"{spec['dir']}/{spec['file']}"
    whole = bool(stamp and stamp["key"] == key and os.path.exists(file))
    return {
        "inputs": inputs,
        "key": key,
        "previous": stamp,
        "cached": whole and hash_file(file) == stamp["sha256"],
        "problem": problem,
    }


def _tree_of(kspec: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    found = kernel_state.gather(kspec)
    if found["key"] is None:
        faults = "; ".join(found["faults"]) or "its source or toolchain is not here any more"
        raise BuildError(f"the kernel's tree: {faults}")
    return kernel_build.prepare_tree(kspec, found), found


def holds(out: str, kernel: str, release: str) -> bool:
    """Whether a build folder holds the kernel of a folder: two may be called by one release."""
    there = machine.read(f"{out}/include/config/kernel.release").strip()
    return there == release and machine.read(f"{out}/.config") == machine.read(f"{kernel}/config")


def built_file(work: str, file: str) -> str | None:
    """What make left: snd-small.ko for snd_small.ko as well, the kernel calls both snd_small."""
    names = [name for name in sorted(os.listdir(work)) if name.replace("-", "_") == file]
    return f"{work}/{names[0]}" if names else None


def build(spec: dict[str, Any], jobs: int) -> None:
    """Make the module in a copy of its source. BuildError names make's words and its exit code."""
    state = build_state(spec)
    if state["problem"] or state["key"] is None:
        raise BuildError(state["problem"] or "the kernel is not built")
    kspec, release = spec["kernel"], state["inputs"]["release"]
    tree, found = _tree_of(kspec)
    out = kernel_make.output_folder(kspec, tree, found["toolchain"])
    make = kernel_make.Make(kspec, tree, out)
    make.words += kmodules.own_release(kspec, found["key"])
    if not holds(out, kspec["dir"], release):
        say(f"the build folder holds another kernel now: {release} is made there again")
        kernel_make.compile_(kspec, make, tree, out, jobs)
    work = f"{spec['cache']}/module/{spec['name']}"
    shutil.rmtree(work, ignore_errors=True)
    source = spec["source"]
    origin = f"{tree}/{source[7:].strip('/')}" if source.startswith("kernel:") else source
    if not os.path.isdir(origin):
        raise BuildError(f"module {spec['name']}: {source}: no such folder in the kernel's tree")
    trees.sync(work, trees.rows(origin, spec["cache"]), share=False)
    make.chamber.writable[MODULE] = work
    filled = {k: fill(v, {"kernel": OUT, "dir": MODULE}) for k, v in spec["variables"].items()}
    # make's own words are -C TREE O=OUT and then what holds for modules as well.
    words = ["make", "-C", MODULE, *make.words[4:], *(f"{k}={v}" for k, v in filled.items())]
    code = make.chamber.run([*words, *spec["targets"]])
    built = built_file(work, spec["file"])
    if code:
        raise BuildError(f"make {' '.join(spec['targets'])}: exit code {code}")
    if built is None:
        raise BuildError(f"make left no {spec['file']} in the module's folder")
    magic = check_vermagic(built, release)
    stamp = {"key": state["key"], "inputs": state["inputs"], "release": release}
    stamp |= {"vermagic": magic, "sha256": hash_file(built), "file": spec["file"]}
    with new_folder(spec["dir"]) as beside:
        shutil.copyfile(built, f"{beside}/{spec['file']}")
        write_json(f"{beside}/stamp.json", stamp)


def _first_place(spec: dict[str, Any]) -> str:
    """The file that is loaded."""
    return placed.paths_of(spec, machine.running(spec)["release"])[0]


def main(argv: list[str]) -> int:
    """The ``module`` verb."""
    verb, word = argv
    asked: dict[str, Callable[[dict[str, Any]], Any]] = {
        "build-state": build_state,
        "state": placed.state,
        "left": placed.left,
    }
    if verb in asked:
        print(json.dumps(asked[verb](decode(word))))
        return 0
    try:
        if verb == "build":
            spec = load(word)
            with locked(f"{spec['cache']}/lock/kernel", f"module {spec['name']}", wait=3600):
                build(spec, len(os.sched_getaffinity(0)))
        elif verb == "place":
            placed.place(decode(word))
        elif verb == "arm":
            spec = decode(word)
            loaded.arm(spec, _first_place(spec))
        elif verb == "load":
            spec = decode(word)
            if spec["load"]:
                placed.note_loaded(spec)
                loaded.load(spec, _first_place(spec))
            else:
                loaded.forget(spec)
        else:
            placed.away(decode(word))
    except (BuildError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(fault_of(error, "module"), file=sys.stderr)
        return 1
    return 0
