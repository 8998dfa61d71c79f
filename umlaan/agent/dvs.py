"""Build the user's DVS tree in its variants, in copies of umlaan's own; the tarball of the guest's.

``dvs state SPEC`` prints what is there as JSON; ``dvs build SPEC VARIANT…`` builds into
``cache/dvs/KEY`` (kept for ever, named by content) and ``dvs install SPEC VARIANT…`` brings
``state/dvs/VARIANT`` to what the cache holds, file by file, so that other files there survive.
SPEC is ``umlaan.plan.dvs.spec``, encoded by ``umlaan.agent.spec``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from typing import Any

from umlaan.agent import index, unpack
from umlaan.agent.atomic import new_file, new_folder, new_link, remove_tree, sync_below
from umlaan.agent.chamber import BuildError, Chamber
from umlaan.agent.dvstar import write_tarball
from umlaan.agent.files import locked, read_json, write_json
from umlaan.agent.sandbox import PATH, NoSandbox
from umlaan.agent.spec import decode

Spec = dict[str, Any]


def source_of(spec: Spec) -> dict[str, Any] | None:
    """The source's manifest and hash; None where there is no source."""
    if "given" in spec:
        # A builder has the source and the compiler; this machine only installs.
        return {"hash": spec["given"]["source"], "rows": {}}
    path = spec["source"]
    exclude = frozenset(spec["exclude"])
    if os.path.isdir(path):
        rows = index.manifest(path, exclude, spec["cache"])
        return {"hash": index.manifest_hash(rows), "rows": rows}
    if unpack.kind_of(path) != "file":
        # Whoever reads a FIFO or a device may wait for ever.
        return None
    found = index.content(path, exclude, spec["cache"])
    return None if found is None else {"hash": found["hash"], "rows": {}}


def compiler(spec: Spec) -> str:
    """The compiler's version line, or the build root that holds it."""
    if "given" in spec:
        return str(spec["given"]["compiler"])
    if spec["buildroot"]:
        stamp = read_json(f"{spec['buildroot']['dir']}.json")
        label = spec["buildroot"]["label"]
        return f"build root {label}: {stamp['compiler'] if stamp else 'missing'}"
    name = spec["cc"]
    try:
        found = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        # A bare machine: the toolchain's stage comes before the build, not before the plan.
        return f"{name}: missing"
    return found.stdout.split("\n", 1)[0] or f"{name}: missing"


def inputs_of(spec: Spec, variant: str, source_hash: str, cc: str) -> dict[str, Any]:
    """All that one variant's build depends on."""
    return {"source": source_hash, "compiler": cc, "steps": spec["variants"][variant]}


def key_of(inputs: dict[str, Any], variant: str) -> str:
    """The content key of one variant; its own even where both are made by the same steps."""
    named = {**inputs, "variant": variant}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:24]


def drift(folder: str, rows: dict[str, list[Any]], cache: str) -> list[str]:
    """Paths of the manifest that differ or are missing below folder; other files are no drift."""
    if not os.path.isdir(folder):
        return sorted(rows)
    have = index.manifest(folder, frozenset(), cache)
    bad = []
    for name, (kind, mode, content) in rows.items():
        found = have.get(name)
        executable = bool(mode & 0o100)
        same = found is not None and [found[0], found[2]] == [kind, content]
        if not same or (kind == "file" and found and bool(found[1] & 0o100) != executable):
            bad.append(name)
    return sorted(bad)


def own(spec: Spec, variant: str, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The manifest without what is put into this copy from elsewhere: dvk.ko, once it is tested."""
    left = spec.get("leave", {}).get(variant, [])
    return {name: row for name, row in rows.items() if name not in left}


def state(spec: Spec) -> dict[str, Any]:
    """What is there of source, variants and tarball."""
    source = source_of(spec)
    answer: dict[str, Any] = {"source": source and source["hash"], "variants": {}}
    if source is None:
        answer["kind"] = unpack.kind_of(spec["source"])
        return answer
    answer["compiler"] = cc = compiler(spec)
    for variant in spec["variants"]:
        inputs = inputs_of(spec, variant, source["hash"], cc)
        key = key_of(inputs, variant)
        stamp = read_json(f"{spec['state']}/{variant}.stamp.json")
        cached = read_json(f"{spec['cache']}/dvs/{key}/stamp.json")
        row: dict[str, Any] = {"key": key, "inputs": inputs, "stamp": stamp and stamp["inputs"]}
        row["built"] = cached is not None
        row["drift"] = []
        row["changed_files"] = []
        if stamp is not None:
            rows = own(spec, variant, stamp["manifest"])
            row["drift"] = drift(f"{spec['state']}/{variant}", rows, spec["cache"])
            before = stamp.get("source_rows", {})
            if before and source["rows"] and stamp["inputs"]["source"] != source["hash"]:
                row["changed_files"] = index.differing(before, source["rows"])[:20]
        if variant == "ipc" and stamp is not None:
            tar = f"{spec['state']}/dvs.tar.gz"
            found = index.content(tar, frozenset(), spec["cache"])
            row["tarball"] = found["hash"] if found else None
            row["tarball_wanted"] = stamp.get("tarball")
        answer["variants"][variant] = row
    return answer


def _unpack(spec: Spec, source_hash: str, target: str) -> None:
    """A fresh copy of the source, excluded names left out."""
    path = spec["source"]
    if os.path.isdir(path):
        ignore = unpack.leaving_out(spec["exclude"])
        shutil.copytree(path, target, symlinks=True, ignore=ignore)
        # A copy by root of another user's setuid program would be root's.
        unpack.tame(target, path, outside=True)
        return
    if spec["sha256"] and spec["sha256"] != source_hash:
        raise SystemExit(f"{path}: sha256 is {source_hash}, wanted {spec['sha256']}")
    beside = f"{target}.tar"
    unpack.unpack(path, beside)
    inside = os.listdir(beside)
    one = len(inside) == 1 and unpack.kind_of(f"{beside}/{inside[0]}") == "directory"
    whole = f"{beside}/{inside[0]}" if one else beside
    os.rename(whole, target)
    remove_tree(beside)


def _make(spec: Spec, folder: str, step: dict[str, Any]) -> list[str]:
    """The command line of one step."""
    variables = [f"{name}={value}" for name, value in step["variables"].items()]
    where = f"{folder}/{step['dir']}"
    if step.get("command"):
        script = f"cd {shlex.quote(where)} && {{ {step['command']}; }}"
        return ["env", *variables, "sh", "-ec", script]
    return ["make", "-C", where, *variables, *step["targets"]]


def build(spec: Spec, variant: str) -> None:
    """One variant into the cache. SystemExit with the failing step's name and command."""
    source = source_of(spec)
    if source is None:
        raise SystemExit(f"dvs.source: {spec['source']}: no such directory or tarball")
    inputs = inputs_of(spec, variant, source["hash"], compiler(spec))
    home = f"{spec['cache']}/dvs/{key_of(inputs, variant)}"
    with _locked(home, variant):
        if not os.path.exists(f"{home}/stamp.json"):
            _build(spec, variant, source, inputs, home)


def _locked(home: str, variant: str) -> contextlib.AbstractContextManager[None]:
    """One build of a content at a time, and nobody removes what another installs from."""
    return locked(f"{home}.lock", f"DVS {variant}", wait=1800)


def _build(
    spec: Spec, variant: str, source: dict[str, Any], inputs: dict[str, Any], home: str
) -> None:
    # An earlier umlaan's, where its run was killed.
    remove_tree(f"{home}.work")
    with new_folder(home) as work:
        _unpack(spec, source["hash"], f"{work}/dvs")
        for step in spec["variants"][variant]:
            _run_step(spec, variant, f"{work}/dvs", step)
        rows = index.manifest(f"{work}/dvs", frozenset(), spec["cache"])
        stamp = {"inputs": inputs, "manifest": rows, "source_rows": source["rows"]}
        stamp["bytes"] = sum(
            os.lstat(f"{work}/dvs/{name}").st_size for name in rows if rows[name][0] == "file"
        )
        if variant == "ipc":
            name = os.path.basename(spec["dest"])
            stamp["tarball"] = write_tarball(f"{work}/dvs", rows, f"{work}/dvs.tar.gz", name)
        write_json(f"{work}/stamp.json", stamp)


def _sandbox(spec: Spec, folder: str, place: str, environment: dict[str, str]) -> Chamber:
    """The build root, or this machine's own, with the variant's copy at its place."""
    root = spec["buildroot"]
    if not root:
        # A compiler of the user's may be found by the path alone.
        environment = {"PATH": os.environ.get("PATH", PATH), **environment}
    return Chamber(
        spec["cache"],
        root=root["dir"] if root else "/",
        personality="i686" if root and root["arch"] == "i386" else None,
        writable={place: folder},
        environment=environment,
    )


def _run_step(spec: Spec, variant: str, folder: str, step: dict[str, Any]) -> None:
    if not os.path.isdir(f"{folder}/{step['dir']}"):
        raise SystemExit(f"DVS {variant}: dvs.steps names {step['dir']}, which the tree lacks")
    # In a build root it is made at the place where it will stand: its makefiles know that path.
    place = spec["dest"] if spec["buildroot"] else folder
    command = _make(spec, place, step)
    print(f"# {shlex.join(command)}\n{variant}: {step['dir']}", flush=True)
    environment = {"SOURCE_DATE_EPOCH": "0", "DVS_VARIANT": variant}
    try:
        words = _sandbox(spec, folder, place, environment).argv(command)
    except NoSandbox as fault:
        raise SystemExit(f"DVS {variant}: {fault}") from None
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    sys.stdout.write(done.stdout.decode(errors="replace"))
    sys.stdout.flush()
    if done.returncode:
        raise SystemExit(f"DVS {variant}: {shlex.join(command)}: exit code {done.returncode}")


def install(spec: Spec, variant: str) -> None:
    """Bring state/dvs/VARIANT to the cache's content; files that are not of the manifest stay.

    SystemExit where the content is not in the cache, or cannot be made again there.
    """
    source = source_of(spec)
    assert source is not None
    inputs = inputs_of(spec, variant, source["hash"], compiler(spec))
    home = f"{spec['cache']}/dvs/{key_of(inputs, variant)}"
    with _locked(home, variant):
        _install(spec, variant, source, inputs, home)


def _install(
    spec: Spec, variant: str, source: dict[str, Any], inputs: dict[str, Any], home: str
) -> None:
    folder = f"{spec['state']}/{variant}"
    stamp = read_json(f"{home}/stamp.json")
    if stamp is None:
        raise SystemExit(f"DVS {variant}: {home} is not built")
    if drift(f"{home}/dvs", stamp["manifest"], spec["cache"]):
        remove_tree(home)
        if "given" in spec:
            raise SystemExit(
                f"DVS {variant}: {home} was not whole and is removed; the next run brings it anew"
            )
        _build(spec, variant, source, inputs, home)
        stamp = read_json(f"{home}/stamp.json")
    wanted = own(spec, variant, stamp["manifest"])
    old = read_json(f"{folder}.stamp.json") or {"manifest": {}}
    for name in sorted(set(own(spec, variant, old["manifest"])) - set(wanted), reverse=True):
        _remove(f"{folder}/{name}")
    os.makedirs(folder, exist_ok=True)
    for name in drift(folder, wanted, spec["cache"]):
        _place(f"{home}/dvs/{name}", f"{folder}/{name}", wanted[name])
    # Once for all files: the stamp that speaks of them comes last.
    sync_below(folder)
    if variant == "ipc":
        with new_file(f"{spec['state']}/dvs.tar.gz") as made:
            shutil.copyfile(f"{home}/dvs.tar.gz", made)
    write_json(f"{folder}.stamp.json", stamp)


def _remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    except OSError:
        return


def _place(source: str, target: str, row: list[Any]) -> None:
    kind, mode, content = row
    if kind == "dir":
        if os.path.islink(target) or (os.path.exists(target) and not os.path.isdir(target)):
            # A link that a folder takes the place of: what is put below it would go elsewhere.
            os.unlink(target)
        os.makedirs(target, mode=mode, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(target) and not os.path.islink(target):
        remove_tree(target)
    if kind == "link":
        new_link(target, content)
        return
    with new_file(target, durable=False) as made:
        shutil.copy2(source, made)


def main(argv: list[str]) -> int:
    """The ``dvs`` verb: state, make, install, build (both), stamp."""
    if argv[0] == "stamp":
        found = read_json(argv[1])
        names = ("manifest", "bytes")
        print(json.dumps(found and {name: found.get(name) for name in names}))
        return 0
    verb, spec, *variants = argv[0], decode(argv[1]), *argv[2:]
    if verb == "state":
        print(json.dumps(state(spec)))
        return 0
    if verb in ("make", "build"):
        # Variants are independent copies; make itself stays single, the trees are small.
        with concurrent.futures.ThreadPoolExecutor(len(variants)) as pool:
            jobs = [pool.submit(build, spec, variant) for variant in variants]
            faults = [job.exception() for job in jobs]
        for fault in faults:
            if isinstance(fault, BuildError | OSError | shutil.Error):
                raise SystemExit(f"dvs.source: {fault}")
            if fault is not None:
                raise fault
    for variant in variants if verb != "make" else ():
        install(spec, variant)
    return 0
