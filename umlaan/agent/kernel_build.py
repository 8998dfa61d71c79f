"""``kernel-build SPEC-FILE``: build a kernel, or take it from the cache, and put it in its place.

Source, layers, configuration, make, stamp: each step is skipped where its result is there. All of
it can be interrupted at any point; the next run goes on. Runs under a lock on the cache.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import sys
import time
from typing import Any

from umlaan.agent import (
    kconfig,
    kernel_state,
    kmodules,
    kobjects,
    patching,
    ready,
    source,
    trees,
)
from umlaan.agent.chamber import CCACHE, OUT, TREE, BuildError, Chamber, say
from umlaan.agent.files import locked, read_json, write_atomic, write_json
from umlaan.agent.index import hash_file
from umlaan.agent.spec import load

UNFINISHED = ".umlaan-unfinished"


def prepare_tree(spec: dict[str, Any], found: dict[str, Any]) -> str:
    """The tree to build from: what was unpacked, or one of our own with all layers laid over."""
    cache, identity = spec["cache"], found["identity"]
    directory = spec["source"].get("directory")
    fixes = kernel_state.fixes_for(spec, identity["version"], found["toolchain"]["glibc"])
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
    if spec["patches"] or fixes:
        rows = patching.apply(spec, fixes, rows, scratch)
    fresh = not os.path.isdir(tree)
    changed = trees.sync(tree, rows, share=not directory)
    if fresh:
        say(f"source tree {tree}: {len(rows)} entries")
    elif changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        say(f"source tree: {', '.join(changed[:3])}{more} renewed")
    shutil.rmtree(scratch, ignore_errors=True)
    return tree


def output_folder(spec: dict[str, Any], tree: str, tools: dict[str, str]) -> str:
    """The O= folder: one for each tree, architecture, base and toolchain."""
    named = [os.path.basename(tree), spec["arch"], spec["subarch"], spec["base"], tools["id"]]
    return f"{spec['cache']}/build/{hashlib.sha256(repr(named).encode()).hexdigest()[:16]}"


def recover(out: str) -> None:
    """Make an O= folder safe to go on in after a build that was killed, or a clock set back."""
    mark = f"{out}/{UNFINISHED}"
    newest = read_json(f"{out}.json")
    if isinstance(newest, dict) and newest["ended"] > time.time() + 2:
        say("the clock was set back since the last build: build afresh")
        shutil.rmtree(out)
    if not os.path.exists(mark):
        return
    started = os.path.getmtime(mark) - 2
    gone = 0
    for folder, folders, files in os.walk(out):
        # These files' times tell make which options changed: they are renewed whole or not at all.
        folders[:] = [f for f in folders if f"{folder}/{f}" != f"{out}/include/config"]
        for name in files:
            path = f"{folder}/{name}"
            if path.startswith((f"{out}/.config", f"{out}/include/generated/autoconf.h")):
                continue
            if os.lstat(path).st_mtime >= started:
                os.unlink(path)
                gone += 1
    if gone:
        say(f"the last build was cut off: {gone} files of it are made again")


class Make:
    """make for one kernel, in its chamber."""

    def __init__(self, spec: dict[str, Any], tree: str, out: str) -> None:
        cache, root = spec["cache"], spec["toolchain"]
        ccache = f"{cache}/ccache"
        for folder in (out, ccache):
            os.makedirs(folder, exist_ok=True)
        self.chamber = Chamber(
            cache,
            root=root["dir"] if root else "/",
            personality="i686" if root and root["arch"] == "i386" else None,
            read_only={TREE: tree, **spec["beside"]},
            writable={OUT: out, CCACHE: ccache},
            environment={"CCACHE_DIR": CCACHE, "CCACHE_COMPILERCHECK": "content"},
        )
        self.words = ["make", "-C", TREE, f"O={OUT}", f"ARCH={spec['arch']}"]
        if spec["arch"] == "um":
            self.words.append(f"SUBARCH={spec['subarch']}")
        if self.chamber.has("ccache"):
            cc, hostcc = (spec["make"].get(k, "gcc") for k in ("CC", "HOSTCC"))
            self.words += [f"CC=ccache {cc}", f"HOSTCC=ccache {hostcc}"]
        taken = ("CC", "HOSTCC") if self.chamber.has("ccache") else ()
        self.words += [f"{k}={v}" for k, v in spec["make"].items() if k not in taken]

    def run(self, *targets: str) -> None:
        """Run make; BuildError with its exit code. What it printed is in the log already."""
        code = self.chamber.run([*self.words, *targets])
        if code:
            raise BuildError(f"make {' '.join(targets)}: exit code {code}")


def configure(spec: dict[str, Any], make: Make, tree: str, out: str) -> dict[str, str]:
    """Base, fragments and options through olddefconfig; the result. BuildError: what got lost."""
    beside = f"{out}/.config.umlaan"
    where = f"KCONFIG_CONFIG={OUT}/.config.umlaan"
    for left in (beside, f"{beside}.old"):
        if os.path.exists(left):
            os.unlink(left)
    if spec["base_text"] is None and not spec["base_file"]:
        say(f"configure: {spec['base']} and {len(spec['options'])} options")
        make.run("-s", where, spec["base"])
        with open(beside, encoding="utf-8") as file:
            text = file.read()
    elif spec["base_file"]:
        with open(spec["base_file"], encoding="utf-8", errors="replace") as file:
            text = file.read()
    else:
        text = spec["base_text"]
    base = kconfig.parse(text)
    # In a choice the last line wins, so what was asked for stands behind the base.
    kept = {k: v for k, v in base.items() if k not in spec["options"]}
    write_atomic(beside, kconfig.render({**kept, **spec["options"]}).encode())
    make.run("-s", where, "olddefconfig")
    with open(beside, "rb") as file:
        made = file.read()
    options = kconfig.parse(made.decode(errors="replace"))
    lost = kconfig.lost(spec["options"], options)
    if lost:
        lines = kconfig.explain(lost, tree)
        back = ", ".join(f'"{name}": "n"' for name, _, _ in lost[:3])
        lines.append(f"what this kernel can do without is taken back by options = {{{back}}}")
        raise BuildError("options that were asked for did not survive:\n  " + "\n  ".join(lines))
    if spec["base_text"] is not None or spec["base_file"]:
        said = {k: v for k, v in base.items() if k not in spec["options"] and v != "n"}
        for name, wanted, there in kconfig.lost(said, options):
            print(f"base configuration: CONFIG_{name}: {wanted} there, {there} in this kernel")
    config = f"{out}/.config"
    if not os.path.exists(config) or _read(config) != made:
        write_atomic(config, made)
    os.unlink(beside)
    return options


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def compile_(spec: dict[str, Any], make: Make, tree: str, out: str, jobs: int) -> dict[str, Any]:
    """make; the release and the options. Says how many files there are to do."""
    recover(out)
    make_new = not os.path.exists(f"{out}/.config")
    mark = f"{out}/{UNFINISHED}"
    os.makedirs(out, exist_ok=True)
    if not os.path.exists(mark):
        write_atomic(mark, b"")
    options = configure(spec, make, tree, out)
    # ccache or not, the objects of a first build can be counted before it.
    if make_new or not os.path.exists(f"{out}/vmlinux"):
        total = kobjects.count(tree, spec["arch"], spec["subarch"], options)
        have = sum(f.endswith(".o") for _, _, files in os.walk(out) for f in files)
        print(f"umlaan-total: {max(total - have, 1)}", flush=True)
    targets = ["linux"] if spec["arch"] == "um" else []
    if options.get("MODULES") == "y" and spec["modules"] and targets:
        targets.append("modules")
    say(f"compile with {jobs} jobs")
    make.run(f"-j{jobs}", *(targets or ["all"]))
    release = make.chamber.ask([*make.words, "-s", "kernelrelease"]).splitlines()[-1]
    write_json(f"{out}.json", {"ended": time.time()})
    os.unlink(mark)
    return {"release": release, "options": options}


def store(spec: dict[str, Any], found: dict[str, Any], made: dict[str, Any], beside: str) -> str:
    """Stamp what stands in beside and give it its name in the cache; that folder."""
    final = f"{spec['cache']}/kernel/{found['key']}"
    stamp = {
        "key": found["key"],
        "inputs": found["inputs"],
        "release": made["release"],
        "transports": made["transports"],
        "modules": made["modules"],
        "extra": made.get("extra", []),
        "sha256": hash_file(f"{beside}/linux"),
        "size": os.path.getsize(f"{beside}/linux"),
    }
    for name in os.listdir(beside):
        if os.path.isfile(f"{beside}/{name}"):
            with open(f"{beside}/{name}", "rb") as file:
                os.fsync(file.fileno())
    write_json(f"{beside}/stamp.json", stamp)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(beside, final)
    return final


def build(spec: dict[str, Any], found: dict[str, Any], jobs: int) -> str:
    """Make the kernel of these inputs; its folder in the cache."""
    cache = spec["cache"]
    beside = f"{cache}/kernel/{found['key']}.new"
    shutil.rmtree(beside, ignore_errors=True)
    os.makedirs(beside)
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
        made["transports"] = kconfig.transports(made["options"])
        made["modules"] = None
        image = "linux"
        if spec["arch"] != "um":
            image = make.chamber.ask([*make.words, "-s", "image_name"]).splitlines()[-1]
        if spec["arch"] != "um" or spec["modules"]:
            kmodules.staged(spec, make, out, made, beside)
        shutil.copyfile(f"{out}/{image}", f"{beside}/linux")
        config = _read(f"{out}/.config")
    os.chmod(f"{beside}/linux", 0o755)
    if spec["arch"] == "um":
        ready.runs(f"{beside}/linux")
    write_atomic(f"{beside}/config", config)
    return store(spec, found, made, beside)


def place(folder: str, target: str) -> None:
    """Copy a whole kernel from the cache to where nodes start it; the stamp goes last."""
    os.makedirs(target, exist_ok=True)
    stamp = read_json(f"{folder}/stamp.json")
    there = read_json(f"{target}/stamp.json")
    if there is not None:
        os.unlink(f"{target}/stamp.json")
        for name in set(there.get("extra", ())) - set(stamp.get("extra", ())):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{target}/{name}")
    for name in ("linux", "config", *stamp.get("extra", ())):
        beside = f"{target}/{name}.new"
        if os.path.isdir(f"{folder}/{name}"):
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(f"{folder}/{name}", beside, symlinks=True)
            shutil.rmtree(f"{target}/{name}", ignore_errors=True)
        else:
            shutil.copyfile(f"{folder}/{name}", beside)
            shutil.copymode(f"{folder}/{name}", beside)
        os.rename(beside, f"{target}/{name}")
    write_json(f"{target}/stamp.json", stamp)


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


def converge(spec: dict[str, Any], jobs: int) -> None:
    """The whole way. BuildError, one message, where it cannot be gone."""
    cache = spec["cache"]
    for left in (*glob.glob(f"{cache}/source/*.new"), *glob.glob(f"{cache}/kernel/*.new")):
        shutil.rmtree(left, ignore_errors=True)
    found = kernel_state.gather(spec)
    if found["faults"]:
        raise BuildError("\n".join(found["faults"]))
    if found["key"] is None:
        if found["toolchain"] is None and not spec["ready"]:
            raise BuildError("no compiler: the toolchain is not installed yet")
        (ready if spec["ready"] else source).fetch(spec["source"], cache)
        if not spec["ready"] and not spec["source"].get("directory"):
            identity = source.identify(spec["source"], cache)
            if identity["problem"]:
                raise BuildError(identity["problem"])
            source.unpack(identity, cache)
        found = kernel_state.gather(spec)
    folder = kernel_state.cached(cache, found["key"])
    if folder:
        say("taken from the cache, whole")
    else:
        if not spec["ready"] and not spec["source"].get("directory"):
            source.unpack(found["identity"], cache)
        folder = build(spec, found, jobs)
    place(folder, spec["dir"])
    if spec.get("keep"):
        prune(spec)


def main(argv: list[str]) -> int:
    """The ``kernel-build`` verb."""
    spec = load(argv[0])
    jobs = len(os.sched_getaffinity(0))
    try:
        with locked(f"{spec['cache']}/lock/kernel", f"build of {spec['source']}", wait=3600):
            converge(spec, jobs)
    except (BuildError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'kernel'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0
