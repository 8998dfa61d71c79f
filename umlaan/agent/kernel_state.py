"""``kernel-state SPEC``: all that a kernel depends on, what is there, and whether it is whole.

Prints one JSON object: inputs and key (null while a source or toolchain is not here yet), the
stamp of this kernel or of the most similar other one, the state of the artifact, the faults in
what was asked for. Changes nothing but its index of hashes.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from typing import Any

from umlaan.agent import patching, ready, source, trees
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import read_json, write_json
from umlaan.agent.spec import decode

# Raise it when the same inputs would give another result, for example by another make flag.
RECIPE = 1
_LABELS = ("label", "path")


def key_of(inputs: dict[str, Any]) -> str:
    """The content key: all inputs but the names that only people read."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if k not in _LABELS}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return hashlib.sha256(json.dumps(bare(inputs), sort_keys=True).encode()).hexdigest()


def compiler(cc: str, cache: str) -> str | None:
    """The version line of the lab host's compiler and linker, asked again only if they moved."""
    lines = []
    for program in (shlex.split(cc)[0], "ld"):
        path = shutil.which(program)
        if path is None:
            return None
        lines.append(_version_line(os.path.realpath(path), cache))
    return ", ".join(lines)


def _version_line(path: str, cache: str) -> str:
    info = os.stat(path)
    kept_in, seen = f"{cache}/index/tools.json", [info.st_size, info.st_mtime_ns, info.st_ino]
    kept = read_json(kept_in)
    kept = kept if isinstance(kept, dict) else {}
    if path in kept and kept[path][0] == seen:
        return str(kept[path][1])
    done = subprocess.run([path, "--version"], capture_output=True, check=False)
    line = done.stdout.decode(errors="replace").partition("\n")[0].strip()
    with contextlib.suppress(OSError):
        # What cannot be kept is asked again the next time.
        write_json(kept_in, {**kept, path: [seen, line]})
    return line


def toolchain(spec: dict[str, Any]) -> dict[str, str] | None:
    """label, id and glibc of the toolchain; None while it is not there."""
    root = spec["toolchain"]
    if root is None:
        line = compiler(spec["make"].get("CC", "gcc"), spec["cache"])
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").rpartition(" ")[2]
        if line is None:
            return None
        return {"label": line, "id": line, "glibc": glibc, "machine": platform.machine()}
    stamp = read_json(f"{root['dir']}.json")
    if not isinstance(stamp, dict) or not os.path.isdir(root["dir"]):
        return None
    label = f"{root['label']}, {stamp['compiler']}"
    return {"label": label, "id": stamp["id"], "glibc": stamp["glibc"], "machine": root["arch"]}


def version_tuple(text: str) -> tuple[int, ...]:
    """ "4.9.88" as numbers; what is not a number ends it."""
    parts = []
    for part in text.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def fixes_for(spec: dict[str, Any], version: str, tools: dict[str, str]) -> list[dict[str, Any]]:
    """Those of umlaan's fixes whose range holds the kernel's version and the toolchain's."""
    kernel = version_tuple(version)
    there = {"glibc": version_tuple(tools["glibc"]), "gcc": gcc_version(tools["label"])}
    return [
        fix
        for fix in spec["fixes"]
        if version_tuple(fix["since"]) <= kernel < version_tuple(fix["until"])
        and all(there[tool] >= version_tuple(fix[tool]) for tool in there if tool in fix)
    ]


def gcc_version(label: str) -> tuple[int, ...]:
    """10, 2, 1 of "gcc (Debian 10.2.1-6) 10.2.1 20210110"; empty for another compiler."""
    found = re.search(r"gcc\S* \(.*\) (\d+(?:\.\d+)*)", label)
    return version_tuple(found[1]) if found else ()


def options_for(spec: dict[str, Any], version: str | None) -> dict[str, str]:
    """The options that are asked of a kernel of this version; all while it is not known."""
    wanted: dict[str, str] = spec["options"]
    if version is None:
        return wanted
    kernel = version_tuple(version)
    return {
        name: value
        for name, value in wanted.items()
        if _within(kernel, *spec.get("ranges", {}).get(name, ("", "")))
    }


def _within(kernel: tuple[int, ...], since: str, until: str) -> bool:
    after = not since or version_tuple(since) <= kernel
    return after and (not until or kernel < version_tuple(until))


def _layers(spec: dict[str, Any], faults: list[str]) -> dict[str, list[dict[str, str]]]:
    cache = spec["cache"]
    found: dict[str, list[dict[str, str]]] = {"overlays": [], "patches": [], "beside": []}
    for path in spec["overlays"]:
        if os.path.isdir(path):
            digest = trees.content_hash(path, cache)
            found["overlays"].append({"path": path, "hash": digest})
        else:
            faults.append(f"kernel.overlays: {path}: no such directory")
    for place, path in sorted(spec["beside"].items()):
        if os.path.isdir(path):
            digest = trees.content_hash(path, cache)
            found["beside"].append({"path": path, "at": place, "hash": digest})
        else:
            faults.append(f"kernel.beside: {path}: no such directory")
    try:
        for path in patching.files_of(spec["patches"]):
            found["patches"].append({"path": path, "hash": source.file_hash(path, cache)})
    except BuildError as error:
        faults.append(str(error))
    return found


def _base(spec: dict[str, Any], faults: list[str]) -> dict[str, str]:
    text = spec["base_text"]
    if spec["base_file"]:
        try:
            with open(spec["base_file"], encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError as error:
            faults.append(f"kernel.base: {spec['base_file']}: {error.strerror}")
    digest = hashlib.sha256((text or "").encode()).hexdigest() if text is not None else ""
    return {"label": spec["base"], "hash": digest or spec["base"]}


def gather(spec: dict[str, Any]) -> dict[str, Any]:
    """inputs, key, faults: what the kernel depends on as it is now."""
    faults: list[str] = []
    identify = ready.identify if spec["ready"] else source.identify
    identity = identify(spec["source"], spec["cache"])
    if identity["problem"]:
        faults.append(identity["problem"])
    inputs: dict[str, Any] = {
        "recipe": RECIPE,
        "source": {k: identity[k] for k in ("label", "hash", "version")},
        "modules": spec["modules"],
    }
    tools: dict[str, str] | None = None
    if not spec["ready"]:
        layers = _layers(spec, faults)
        tools = toolchain(spec)
        inputs |= {
            **layers,
            "arch": [spec["arch"], spec["subarch"]],
            "base": _base(spec, faults),
            "options": options_for(spec, identity["version"]),
            "make": spec["make"],
            "toolchain": {"label": tools["label"], "id": tools["id"]} if tools else None,
            "fixes": None,
        }
        if tools and identity["version"]:
            used = fixes_for(spec, identity["version"], tools)
            inputs["fixes"] = {f["name"]: key_of(f)[:12] for f in used}
    whole = identity["hash"] and (spec["ready"] or inputs["fixes"] is not None)
    return {
        "inputs": inputs,
        "key": key_of(inputs) if whole and not faults else None,
        "faults": faults,
        "identity": identity,
        "toolchain": tools,
    }


def adopt(spec: dict[str, Any], found: dict[str, Any], stamp: dict[str, Any]) -> None:
    """Where the source or toolchain is gone but was the same, take the stamp's word for it.

    A kernel that stands built needs neither; only a change of the rest would bring them back.
    """
    if found["key"] or found["faults"] or "inputs" not in stamp:
        return
    inputs, before = found["inputs"], stamp["inputs"]
    source_now, source_then = inputs["source"], before.get("source", {})
    if source_now["hash"] not in (None, source_then.get("hash")):
        return
    named = source_now["label"]
    if source_now["hash"] is None and not str(source_then.get("label", "")).startswith(named):
        return
    inputs["source"] = source_then
    if "options" in inputs:
        inputs["options"] = options_for(spec, source_then.get("version"))
    for part in ("toolchain", "fixes"):
        if inputs.get(part, "") is None:
            inputs[part] = before.get(part)
    found["key"] = key_of(inputs)


def artifact(folder: str, stamp: dict[str, Any], cache: str) -> str:
    """ok, or in words what is wrong with the linux that the stamp speaks of."""
    path = f"{folder}/linux"
    try:
        size = os.path.getsize(path)
    except OSError:
        return "linux is missing"
    if size < stamp["size"]:
        return f"linux is truncated: {size} of {stamp['size']} bytes"
    if source.file_hash(path, cache) != stamp["sha256"]:
        return "linux is not the one that was built"
    for name in ("config", *stamp.get("extra", ())):
        if not os.path.exists(f"{folder}/{name}"):
            return f"{name} is missing"
    return "ok" if os.access(path, os.X_OK) else "linux is not executable"


def cached(cache: str, key: str | None) -> str | None:
    """The folder of a whole kernel of that key in the cache."""
    folder = f"{cache}/kernel/{key}"
    stamp = read_json(f"{folder}/stamp.json") if key else None
    if isinstance(stamp, dict) and artifact(folder, stamp, cache) == "ok":
        return folder
    return None


def similar(folder: str, cache: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The stamp of the kernel beside this one that differs in the fewest inputs.

    A builder's folder holds those of all labs: there only one of the same source is its forerunner.
    """
    shared = folder.startswith(f"{cache}/built/")
    best: tuple[int, float, dict[str, Any]] | None = None
    for path in glob.glob(f"{os.path.dirname(folder)}/*/stamp.json"):
        stamp = read_json(path)
        if isinstance(stamp, dict) and isinstance(stamp.get("inputs"), dict):
            then = stamp["inputs"]
            if shared and _kind(then) != _kind(inputs):
                continue
            differing = sum(then.get(k) != v for k, v in inputs.items())
            rank = (differing, -os.path.getmtime(path))
            if best is None or rank < best[:2]:
                best = (*rank, stamp)
    return best[2] if best else None


def _kind(inputs: dict[str, Any]) -> tuple[Any, Any]:
    """What two kernels share of which one is the other with something changed."""
    return inputs["source"]["label"], inputs.get("arch")


def state(spec: dict[str, Any]) -> dict[str, Any]:
    """What the fact prints."""
    found = gather(spec)
    stamp = read_json(f"{spec['dir']}/stamp.json")
    stamp = stamp if isinstance(stamp, dict) and "inputs" in stamp else None
    previous = stamp or similar(spec["dir"], spec["cache"], found["inputs"])
    if previous:
        adopt(spec, found, previous)
    there = artifact(spec["dir"], stamp, spec["cache"]) if stamp else "not there"
    whole = bool(stamp and found["key"] and stamp["key"] == found["key"]) and there == "ok"
    return {
        "inputs": found["inputs"],
        "key": found["key"],
        "faults": found["faults"],
        "stamp": stamp,
        "previous": None if stamp else previous,
        "artifact": there,
        "cached": None if whole else bool(cached(spec["cache"], found["key"])),
    }


def main(argv: list[str]) -> int:
    """The ``kernel-state`` verb."""
    print(json.dumps(state(decode(argv[0]))))
    return 0
