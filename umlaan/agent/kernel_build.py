"""``kernel-build SPEC-FILE``: build a kernel, or take it from the cache, and put it in its place.

Source, layers, configuration, make, stamp: each step is skipped where its result is there. All of
it can be interrupted at any point; the next run goes on. One build at a time on a cache.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import sys
from typing import Any

from umlaan.agent import beneath, kconfig, kernel_state, kmodules, patching, ready, source, trees
from umlaan.agent.atomic import new_file, new_folder, sweep_all
from umlaan.agent.chamber import BuildError, say
from umlaan.agent.files import fault_of, locked, read_json, write_atomic, write_json
from umlaan.agent.index import hash_file
from umlaan.agent.kernel_make import Make, compile_, output_folder
from umlaan.agent.spec import load


def prepare_tree(spec: dict[str, Any], found: dict[str, Any]) -> str:
    """The tree to build from: what was unpacked, or one of our own with all layers laid over."""
    cache, identity = spec["cache"], found["identity"]
    directory = spec["source"].get("directory")
    fixes = kernel_state.fixes_for(spec, identity["version"], found["toolchain"])
    pristine = directory or source.unpacked(identity["hash"], cache)
    layered = spec["overlays"] or spec["patches"] or fixes
    if not directory and not layered:
        return pristine
    named = [pristine, spec["overlays"], spec["patches"]]
    tree = f"{cache}/source/tree-{hashlib.sha256(repr(named).encode()).hexdigest()[:16]}"
    rows = trees.rows(pristine, cache, None if directory else identity["hash"][:24])
    for overlay in spec["overlays"]:
        over = trees.rows(overlay, cache)
        rows = trees.lay(rows, over)
        say(f"overlay {overlay}: {sum(r.kind != 'dir' for r in over.values())} files")
    scratch = f"{tree}.scratch"
    try:
        if spec["patches"] or fixes:
            rows = patching.apply(spec, fixes, rows, scratch)
        fresh = not os.path.isdir(tree)
        changed = trees.sync(tree, rows, share=not directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if fresh:
        say(f"source tree {tree}: {len(rows)} entries")
    elif changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        say(f"source tree: {', '.join(changed[:3])}{more} renewed")
    return tree


def stamped(found: dict[str, Any], made: dict[str, Any], beside: str) -> None:
    """Stamp what stands in beside."""
    stamp = {
        "key": found["key"],
        "inputs": found["inputs"],
        "release": made["release"],
        "transports": made["transports"],
        "modules": made["modules"],
        "packed": made.get("packed"),
        "extra": made.get("extra", []),
        "sha256": hash_file(f"{beside}/linux"),
        "size": os.path.getsize(f"{beside}/linux"),
    }
    write_json(f"{beside}/stamp.json", stamp)


def check_beside(spec: dict[str, Any], found: dict[str, Any]) -> None:
    """BuildError where a tree that is read in its place changed while the kernel was built.

    The source itself is a copy of umlaan's; what is made of two contents is neither's kernel.
    """
    if not spec["beside"]:
        return
    now = kernel_state.gather(spec)["inputs"]["beside"]
    if gone := [row for row in found["inputs"]["beside"] if row not in now]:
        raise BuildError(
            f"kernel.beside: {gone[0]['path']} changed while the kernel was built: run again"
        )


def build(spec: dict[str, Any], found: dict[str, Any], jobs: int) -> str:
    """Make the kernel of these inputs; its folder in the cache."""
    final = f"{spec['cache']}/kernel/{found['key']}"
    with new_folder(final) as beside:
        _make(spec, found, jobs, beside)
    return final


def _make(spec: dict[str, Any], found: dict[str, Any], jobs: int, beside: str) -> None:
    cache = spec["cache"]
    if spec["ready"]:
        made = ready.describe(found["identity"])
        folder, made["modules"] = made["modules"], None
        if folder and spec["modules"]:
            kmodules.pack(folder, cache, made, beside)
        shutil.copyfile(found["identity"]["file"], f"{beside}/linux")
        config = made["config"].encode()
    else:
        tree = prepare_tree(spec, found)
        out = output_folder(spec, tree, found["toolchain"])
        make = Make(spec, tree, out)
        make.words += kmodules.own_release(spec, found["key"])
        made = compile_(spec, make, tree, out, jobs)
        check_beside(spec, found)
        made["transports"] = kconfig.transports(made["options"])
        made["modules"] = None
        image = "linux"
        if spec["arch"] != "um":
            image = make.chamber.ask([*make.words, "-s", "image_name"]).splitlines()[-1]
        if spec["arch"] != "um" or spec["modules"]:
            kmodules.staged(spec, make, out, made, beside)
        try:
            # What a build left may be a link to any file of this machine's.
            beneath.copy(out, image, f"{beside}/linux")
            with beneath.reading(out, ".config") as file:
                config = file.read()
        except OSError as error:
            raise BuildError(f"make left no {image} in {out}: {error.strerror}") from None
    os.chmod(f"{beside}/linux", 0o755)
    if spec["arch"] == "um":
        ready.runs(f"{beside}/linux")
    write_atomic(f"{beside}/config", config)
    stamped(found, made, beside)


def place(folder: str, target: str, inputs: dict[str, Any] | None = None) -> None:
    """Copy a whole kernel from the cache to where nodes start it; the stamp goes last.

    inputs name what it is made from in this lab's words; the content is the same.
    """
    os.makedirs(target, exist_ok=True)
    stamp = read_json(f"{folder}/stamp.json")
    there = read_json(f"{target}/stamp.json")
    if there is not None:
        os.unlink(f"{target}/stamp.json")
        for name in set(there.get("extra", ())) - set(stamp.get("extra", ())):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{target}/{name}")
    for name in ("linux", "config", *stamp.get("extra", ())):
        source = f"{folder}/{name}"
        if os.path.isdir(source):
            with new_folder(f"{target}/{name}") as beside:
                shutil.copytree(source, beside, symlinks=True, dirs_exist_ok=True)
        else:
            with new_file(f"{target}/{name}") as beside:
                shutil.copyfile(source, beside)
                shutil.copymode(source, beside)
    write_json(f"{target}/stamp.json", {**stamp, "inputs": inputs or stamp["inputs"]})


def prune(spec: dict[str, Any]) -> None:
    """Remove what no node of the lab speaks of any more; a kernel that runs stays until the next.

    Its content stays in the cache.
    """
    home = os.path.dirname(spec["dir"])
    running = set()
    for link in glob.glob("/proc/[0-9]*/exe"):
        with contextlib.suppress(OSError):
            running.add(os.path.dirname(os.readlink(link)))
    for name in os.listdir(home):
        if name not in spec["keep"] and f"{home}/{name}" not in running:
            say(f"kernel {name}: removed, no node has it any more")
            shutil.rmtree(f"{home}/{name}", ignore_errors=True)


def resolve(spec: dict[str, Any]) -> dict[str, Any]:
    """What the kernel depends on, its source fetched and unpacked. BuildError if that fails."""
    cache = spec["cache"]
    for left in (f"{cache}/source", f"{cache}/kernel"):
        sweep_all(left)
    found = kernel_state.gather(spec)
    if found["faults"]:
        raise BuildError("\n".join(found["faults"]))
    if found["key"] is None:
        if found["toolchain"] is None and not spec["ready"]:
            raise BuildError("no compiler: the toolchain is not installed yet")
        (ready if spec["ready"] else source).fetch(spec["source"], cache)
        unpack(spec)
        found = kernel_state.gather(spec)
    # From here on only what is asked of a kernel of this version.
    spec["options"] = found["inputs"].get("options", spec["options"])
    return found


def unpack(spec: dict[str, Any]) -> None:
    """Unpack a source that is a tarball, unless it is."""
    if spec["ready"] or spec["source"].get("directory"):
        return
    identity = source.identify(spec["source"], spec["cache"])
    if identity["problem"]:
        raise BuildError(identity["problem"])
    source.unpack(identity, spec["cache"])


def converge(spec: dict[str, Any], jobs: int) -> None:
    """The whole way. BuildError, one message, where it cannot be gone."""
    found = resolve(spec)
    if not taken(spec, found):
        unpack(spec)
        _placed(spec, found, build(spec, found, jobs))


def taken(spec: dict[str, Any], found: dict[str, Any]) -> bool:
    """Put the kernel of these inputs in its place if the cache has it; True if so."""
    whole = found["key"] is not None and not found["faults"]
    folder = kernel_state.cached(spec["cache"], found["key"]) if whole else None
    if folder is None:
        return False
    say("taken from the cache, whole")
    _placed(spec, found, folder)
    return True


def _placed(spec: dict[str, Any], found: dict[str, Any], folder: str) -> None:
    place(folder, spec["dir"], found["inputs"])
    if spec.get("keep"):
        prune(spec)


def main(argv: list[str]) -> int:
    """The ``kernel-build`` verb."""
    spec = load(argv[0])
    jobs = len(os.sched_getaffinity(0))
    named = " of ".join(str(word) for word in spec["source"].values())
    try:
        # Another lab's build may take long; what is built already waits for nobody.
        if not taken(spec, kernel_state.gather(spec)):
            with locked(f"{spec['cache']}/lock/kernel", f"the build of {named}", wait=3600):
                converge(spec, jobs)
    except (BuildError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(fault_of(error, "kernel"), file=sys.stderr)
        return 1
    return 0
