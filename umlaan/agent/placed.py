"""A built module on the lab host: ``module state|place|load WORD``; ``module left|away WORD``.

Its vermagic is checked and its host-local tests run before it is put in its places. What stood
there is kept, and comes back when the lab is destroyed.
Procedure: "Una vez realizadas las pruebas locales, el archivo dvk.ko debe quedar instalado".
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import subprocess
from typing import Any

from umlaan.agent import loaded, machine
from umlaan.agent.atomic import new_file, new_link, sweep
from umlaan.agent.chamber import BuildError, say
from umlaan.agent.files import read_json, write_json
from umlaan.agent.hostkernel import put
from umlaan.agent.index import hash_file

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


def paths_of(spec: dict[str, Any], release: str) -> list[str]:
    """The module's places on this machine."""
    names = names_of(spec, release)
    filled = [(place, fill(place, names)) for place in spec["places"]]
    return [machine.at(spec, path) if place.startswith("/") else path for place, path in filled]


def _record(folder: str) -> str:
    """The file that says what of the module in this folder was placed."""
    return f"{folder}.placed.json"


def state(spec: dict[str, Any]) -> dict[str, Any]:
    """The placed module: its stamp, what is not as it was placed, and how it is loaded."""
    here = read_json(f"{spec['dir']}/stamp.json")
    placed = read_json(_record(spec["dir"]))
    now = machine.running(spec)["release"]
    rows, load, stuck = [], [], False
    if isinstance(placed, dict):
        wanted = paths_of(spec, placed["release"])
        for path in wanted:
            if not os.path.exists(path):
                rows.append(f"{path} is missing")
            elif hash_file(path) != placed["sha256"]:
                rows.append(f"{path} is another file")
        gone = [row for row in placed.get("paths", []) if row["path"] not in wanted]
        rows += [
            f"{row['path']} is no longer one of its places"
            for row in gone
            if not of_another_kernel(spec, row, placed["release"])
        ]
        if placed["tests"] != spec["tests"]:
            rows.append("its tests changed")
        if spec["load"] and placed["release"] == now and not rows:
            load = loaded.problems(spec, wanted[0])
            stuck = loaded.stuck(spec, wanted[0])
        elif not spec["load"]:
            load = [f"{path} is no longer wanted" for path in loaded.unwanted(spec, {})]
    return {
        "stamp": placed,
        "here": here["key"] if isinstance(here, dict) else None,
        "problems": rows,
        "load": load,
        "stuck": stuck,
        "loaded": loaded.is_loaded(spec),
        "running": now,
    }


def of_another_kernel(spec: dict[str, Any], row: dict[str, Any], release: str) -> bool:
    """Whether a file stands where the module belongs for another kernel that is still there.

    That kernel is the way back, or will be: what it loads at boot goes with it alone.
    """
    own = row.get("release", release)
    there = os.path.isdir(machine.at(spec, f"/lib/modules/{own}")) and os.path.exists(row["path"])
    return there and row["path"] in paths_of(spec, own)


def place(spec: dict[str, Any]) -> None:
    """Check, test, put in its places. BuildError names the test that failed and quotes it."""
    stamp = read_json(f"{spec['dir']}/stamp.json")
    if not isinstance(stamp, dict):
        raise BuildError(f"module {spec['name']}: nothing was built or brought here")
    release, file = stamp["release"], f"{spec['dir']}/{spec['file']}"
    check_vermagic(file, release)
    if spec["load"] and spec["unload"] and machine.running(spec)["release"] == release:
        # A test loads the new one; and one that is to stay loaded is then the new one, too.
        # A reboot would load the old file again, and what uses it.
        otherwise = "set host_modules.unload to False, which leaves the new one to the next boot"
        loaded.unload(spec, f"{spec['file']} is to be replaced", otherwise)
    test(spec, names_of(spec, release))
    path = _record(spec["dir"])
    record = read_json(path)
    rows = record.get("paths", []) if isinstance(record, dict) else []
    wanted = paths_of(spec, release)
    stay = [row for row in rows if row["path"] in wanted]
    for row in rows:
        if row["path"] in wanted:
            continue
        if of_another_kernel(spec, row, record["release"]):
            stay.append({"release": record["release"], **row})
        else:
            take_away(row)
    kept = {k: stamp[k] for k in ("key", "release", "vermagic", "sha256")}
    kept |= {"tests": spec["tests"], "load": spec["load"], "unload": spec["unload"]}
    for target in wanted:
        row = next((r for r in stay if r["path"] == target), None) or _first(spec, target, record)
        stay = [*(r for r in stay if r["path"] != target), row]
        there = hash_file(target) if os.path.isfile(target) else None
        # Until it is put, what stands there is still an earlier one of ours, or the user's.
        row["was"] = there if there in (row.get("sha256"), row.get("was")) else None
        row |= {"sha256": stamp["sha256"], "release": release}
        # Before the file is there: what a killed run placed is known as umlaan's.
        record = {**kept, "sha256": "", "paths": stay}
        write_json(path, record)
        put(file, target)
        say(f"{target} put")
    if any("/lib/modules/" in target for target in wanted):
        depmod(spec, release)
    write_json(path, {**kept, "paths": [{**row, "was": None} for row in stay]})


def test(spec: dict[str, Any], names: dict[str, str]) -> None:
    """The host-local tests, in order. BuildError names the one that failed and quotes it."""
    for one in spec["tests"]:
        command = fill(one, names)
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


def _first(spec: dict[str, Any], target: str, ours: Any) -> dict[str, Any]:
    """Make a place ready: the folders made for it, and a copy of what stood there.

    ours: the module's record as it is on disk.
    """
    folder, made = os.path.dirname(target), []
    while not os.path.isdir(folder):
        made.append(folder)
        folder = os.path.dirname(folder)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    row: dict[str, Any] = {"path": target, "made": made, "kept": None}
    same = isinstance(ours, dict) and os.path.exists(target) and hash_file(target) == ours["sha256"]
    if os.path.isfile(target) and not same:
        row["kept"] = f"{spec['dir']}.before/{len(target)}-{hash_file(target)[:16]}"
        os.makedirs(os.path.dirname(row["kept"]), exist_ok=True)
        _copy(target, row["kept"])
        row["link"] = os.readlink(target) if os.path.islink(target) else None
        say(f"{target} stood there already: a copy is kept, destroy puts it back")
    return row


def _copy(origin: str, target: str) -> None:
    """Copy whole or not at all, with mode, times and owner."""
    info = os.stat(origin)
    with new_file(target) as made:
        shutil.copy2(origin, made)
        os.chown(made, info.st_uid, info.st_gid)


def take_away(row: dict[str, Any]) -> str | None:
    """Remove what was placed, put back what stood there; in words why it was left alone."""
    path = row["path"]
    sweep(path)
    if os.path.isfile(path):
        if hash_file(path) not in (row["sha256"], row.get("was")):
            return f"{path} stays: it is no longer the file that was placed"
        if row["kept"] and os.path.exists(row["kept"]):
            if row.get("link"):
                new_link(path, row["link"])
            else:
                _copy(row["kept"], path)
            say(f"{path} is again what stood there before")
        else:
            os.unlink(path)
            say(f"{path} removed")
    for folder in row["made"]:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return None


def depmod(spec: dict[str, Any], release: str) -> None:
    """The index of a release's modules made anew, where the release is still there."""
    if os.path.isdir(machine.at(spec, f"/lib/modules/{release}")):
        root = spec.get("root")
        machine.run(["depmod", *(["-b", root] if root else []), release])


def note_loaded(spec: dict[str, Any]) -> None:
    """Have destroy know that it was loaded, where the data changed after it was placed."""
    path = _record(spec["dir"])
    record = read_json(path)
    now = {"load": True, "unload": spec["unload"]}
    if isinstance(record, dict) and record | now != record:
        write_json(path, record | now)


def records(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{module's folder: its record} of every module that this lab placed, but those to be kept."""
    paths = glob.glob(_record(f"{glob.escape(spec['state_dir'])}/modules/*"))
    found = {path.removesuffix(_record("")): read_json(path) for path in sorted(paths)}
    keep = spec.get("keep", ())
    return {
        path: row
        for path, row in found.items()
        if isinstance(row, dict) and os.path.basename(path) not in keep
    }


def _files(spec: dict[str, Any]) -> list[str]:
    """What loads modules of this lab at boot, but those to be kept."""
    keep = {loaded.conf({**spec, "name": name}) for name in spec.get("keep", ())}
    return [path for path in loaded.files_of(spec) if os.path.basename(path) not in keep]


def left(spec: dict[str, Any]) -> list[str]:
    """What of the lab's modules stands outside its state folder."""
    inside = f"{spec['state_dir']}/"
    rows = [row for one in records(spec).values() for row in one.get("paths", [])]
    found = [r["path"] for r in rows if not r["path"].startswith(inside)]
    return [*(p for p in found if os.path.exists(p)), *_files(spec)]


def away(spec: dict[str, Any]) -> None:
    """Take every placed module away; what somebody changed since stays, and that is said."""
    for folder, record in records(spec).items():
        if record.get("load"):
            try:
                unload = record.get("unload", True)
                loaded.unload({**spec, "name": os.path.basename(folder), "unload": unload}, "")
            except BuildError as fault:
                cause = fault.cause if isinstance(fault, loaded.Stays) else fault
                say(f"{cause}; it stays loaded until the next boot")
        rows = record.get("paths", [])
        for text in filter(None, map(take_away, rows)):
            say(text)
        indexed = [row for row in rows if "/lib/modules/" in row["path"]]
        for release in sorted({row.get("release", record["release"]) for row in indexed}):
            depmod(spec, release)
        os.unlink(_record(folder))
        for name in (f"{folder}.loaded.json", f"{folder}.armed.json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        shutil.rmtree(f"{folder}.before", ignore_errors=True)
    for path in _files(spec):
        os.unlink(path)
