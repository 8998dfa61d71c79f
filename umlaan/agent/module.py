"""A module outside the kernel's tree, built against a kernel that was built here.

``module build-state WORD`` and ``module build FILE`` on the machine that builds; ``module state
WORD`` and ``module place WORD`` on the lab host: vermagic checked, host-local tests run, then put
in its places.
Procedure: "Una vez realizadas las pruebas locales, el archivo dvk.ko debe quedar instalado".
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

from umlaan.agent import boot, kernel_build, kernel_make, kernel_state, kmodules, trees
from umlaan.agent.chamber import OUT, BuildError, say
from umlaan.agent.files import locked, read_json, write_json
from umlaan.agent.hostkernel import put
from umlaan.agent.index import hash_file
from umlaan.agent.spec import decode, load

MODULE = "/usr/src/module"
_VERMAGIC = re.compile(rb"\0vermagic=([^\0]*)\0")


def vermagic(path: str) -> str:
    """The kernel that a module says it is for. BuildError if the file says nothing."""
    with open(path, "rb") as file:
        match = _VERMAGIC.search(b"\0" + file.read())
    if not match:
        raise BuildError(f"{path}: no vermagic: not a kernel module")
    return match[1].decode(errors="replace")


def check_vermagic(path: str, release: str) -> str:
    """The vermagic, if it is the release's. BuildError with both where it is not."""
    found = vermagic(path)
    if found.split(" ")[0] != release:
        raise BuildError(f"{path}: built for {found.split(' ')[0]}, the kernel is {release}")
    return found


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
    if boot.read(f"{out}/include/config/kernel.release").strip() != release:
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
    built = f"{work}/{spec['file']}"
    if code:
        raise BuildError(f"make {' '.join(spec['targets'])}: exit code {code}")
    if not os.path.exists(built):
        raise BuildError(f"make left no {spec['file']} in the module's folder")
    magic = check_vermagic(built, release)
    beside = f"{spec['dir']}.new"
    shutil.rmtree(beside, ignore_errors=True)
    os.makedirs(beside)
    shutil.copyfile(built, f"{beside}/{spec['file']}")
    stamp = {"key": state["key"], "inputs": state["inputs"], "release": release}
    stamp |= {"vermagic": magic, "sha256": hash_file(built), "file": spec["file"]}
    write_json(f"{beside}/stamp.json", stamp)
    shutil.rmtree(spec["dir"], ignore_errors=True)
    os.rename(beside, spec["dir"])


def fill(text: str, names: dict[str, str]) -> str:
    """Put the values for {name} into a text; braces that name nothing known stay."""
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def names_of(spec: dict[str, Any], release: str) -> dict[str, str]:
    """What tests and places may name."""
    return {
        "ko": f"{spec['dir']}/{spec['file']}",
        "file": spec["file"],
        "release": release,
        "dvs": spec["dvs"],
        "state_dir": spec["state_dir"],
    }


def state(spec: dict[str, Any]) -> dict[str, Any]:
    """The placed module on the lab host: its stamp, and what is not as it was placed."""
    here = read_json(f"{spec['dir']}/stamp.json")
    placed = read_json(f"{spec['dir']}.placed.json")
    rows = []
    if isinstance(placed, dict):
        wanted = [fill(p, names_of(spec, placed["release"])) for p in spec["places"]]
        for path in wanted:
            if not os.path.exists(path):
                rows.append(f"{path} is missing")
            elif hash_file(path) != placed["sha256"]:
                rows.append(f"{path} is another file")
        if placed["tests"] != spec["tests"]:
            rows.append("its tests changed")
    return {
        "stamp": placed,
        "here": here["key"] if isinstance(here, dict) else None,
        "problems": rows,
        "running": boot.running(spec)["release"],
    }


def place(spec: dict[str, Any]) -> None:
    """Check, test, put in its places. BuildError names the test that failed and quotes it."""
    stamp = read_json(f"{spec['dir']}/stamp.json")
    if not isinstance(stamp, dict):
        raise BuildError(f"module {spec['name']}: nothing was built or brought here")
    release, file = stamp["release"], f"{spec['dir']}/{spec['file']}"
    check_vermagic(file, release)
    names = names_of(spec, release)
    for test in spec["tests"]:
        command = fill(test, names)
        print(f"+ {command}", flush=True)
        done = subprocess.run(
            ["sh", "-ec", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        text = done.stdout.decode(errors="replace").rstrip()
        print(text, flush=True)
        if done.returncode:
            last = text.splitlines()[-1] if text else "it said nothing"
            raise BuildError(
                f"module {spec['name']}: test failed, not placed: {command}: exit code "
                f"{done.returncode}: {last}"
            )
    for path in (fill(p, names) for p in spec["places"]):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        put(file, path)
        say(f"{path} put")
    if any(fill(p, names).startswith("/lib/modules/") for p in spec["places"]):
        boot.run(["depmod", release])
    kept = {k: stamp[k] for k in ("key", "release", "vermagic", "sha256")}
    write_json(f"{spec['dir']}.placed.json", {**kept, "tests": spec["tests"]})


def main(argv: list[str]) -> int:
    """The ``module`` verb."""
    verb, word = argv
    if verb in ("state", "build-state"):
        print(json.dumps((state if verb == "state" else build_state)(decode(word))))
        return 0
    try:
        if verb == "build":
            spec = load(word)
            with locked(f"{spec['cache']}/lock/kernel", f"module {spec['name']}", wait=3600):
                build(spec, len(os.sched_getaffinity(0)))
        else:
            place(decode(word))
    except (BuildError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'module'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0
