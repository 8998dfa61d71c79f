"""The host kernel on its machine: ``host-kernel state WORD``, ``host-kernel install FILE``.

Procedure: "make modules_install, make install, update-initramfs -c -k 4.9.88, update-grub". From
the kernel's folder to /boot and /lib/modules, each file beside and renamed; the stamp, one for
each release, says that it was begun, and last that it is whole.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
from typing import Any

from umlaan.agent import boot, grub, source
from umlaan.agent.atomic import new_file, new_folder
from umlaan.agent.chamber import BuildError, say
from umlaan.agent.files import fault_of, read_json, write_atomic, write_json
from umlaan.agent.grub import list_path
from umlaan.agent.kmodules import PACKED
from umlaan.agent.machine import at, read, run
from umlaan.agent.spec import decode, load

# The kernel's folder -> /boot, each with the release behind its name.
FILES = {"linux": "vmlinuz", "System.map": "System.map", "config": "config"}


def installed_path(spec: dict[str, Any], release: str) -> str:
    """The stamp of an installed release."""
    return f"{spec['state_dir']}/host-kernel/installed/{release}"


def kernel_files(stamp: dict[str, Any]) -> list[str]:
    """The files of the kernel's folder that go to /boot."""
    return [name for name in FILES if name != "System.map" or "System.map" in stamp["extra"]]


def modules_there(spec: dict[str, Any], release: str) -> int:
    """How many modules of the release stand in /lib/modules, those put there later left out."""
    folder = at(spec, f"/lib/modules/{release}/kernel")
    return len(glob.glob(f"{folder}/**/*.ko*", recursive=True))


def problems(spec: dict[str, Any], stamp: dict[str, Any], entry: str) -> list[str]:
    """Why the kernel is to be installed, part by part; empty where all stands."""
    release = stamp["release"]
    there = read_json(installed_path(spec, release))
    if not isinstance(there, dict):
        return [f"install {release}, not there yet"]
    if not there.get("whole", True):
        return [f"install {release}, it was cut off the last time"]
    rows = []
    if there["key"] != stamp["key"]:
        rows.append(f"install {release} again, its content changed")
    for name in kernel_files(stamp):
        target = at(spec, f"/boot/{FILES[name]}-{release}")
        if not os.path.exists(target):
            rows.append(f"/boot/{FILES[name]}-{release} is missing")
        elif name == "linux" and source.file_hash(target, spec["cache"]) != stamp["sha256"]:
            rows.append(f"/boot/vmlinuz-{release} is not the one that was built")
    # More are no damage: a module may have been put beside the kernel's own.
    if stamp["modules"] and modules_there(spec, release) < there["modules"]:
        rows.append(f"/lib/modules/{release} is not whole")
    if spec["initramfs"] and not os.path.exists(at(spec, f"/boot/initrd.img-{release}")):
        rows.append(f"/boot/initrd.img-{release} is missing")
    return [*rows, *menu_problems(spec, entry)]


def menu_problems(spec: dict[str, Any], entry: str) -> list[str]:
    """What of grub's menu is not as it should be."""
    rows = []
    for path, text in spec["files"].items():
        found = read(at(spec, path))
        if found != text:
            rows.append(f"{path} {'differs' if found else 'is missing'}")
    if line_of(spec, entry) not in read(list_path(spec)).splitlines():
        rows.append(f"grub: entry {entry} is new: the kernel or its parameters changed")
    elif entry not in grub.menu(spec):
        rows.append(f"grub: entry {entry} is not in the menu")
    return rows


def line_of(spec: dict[str, Any], entry: str) -> str:
    """The entry's line of the list."""
    initrd = "initrd" if spec["initramfs"] else "none"
    words = [entry, spec["release"], initrd, f"panic={spec['panic']}", *spec["parameters"]]
    return " ".join(words)


def wanted(spec: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """(stamp of the kernel that is to run, its entry); (None, "") while it is not built."""
    stamp = read_json(f"{spec['dir']}/stamp.json")
    if not isinstance(stamp, dict):
        return None, ""
    spec["release"] = stamp["release"]
    spec["entry"] = boot.entry_of(spec, stamp["key"])
    return stamp, spec["entry"]


def state(spec: dict[str, Any]) -> dict[str, Any]:
    """What the fact prints: the wanted kernel, its entry, what is wrong, and grub's own state."""
    stamp, entry = wanted(spec)
    found = boot.state(spec)
    fault = None
    if stamp:
        there = read_json(installed_path(spec, stamp["release"]))
        running = found["running"]["release"] == stamp["release"]
        if running and (not isinstance(there, dict) or there["key"] != stamp["key"]):
            fault = (
                f"the wanted kernel has the running one's release {stamp['release']} but another "
                "content: give it one of its own (leave LOCALVERSION out of host_kernel.make)"
            )
    return {
        **found,
        "kernel": {"release": stamp["release"], "key": stamp["key"]} if stamp else None,
        "entry": entry,
        "fault": fault,
        "problems": problems(spec, stamp, entry) if stamp else [],
    }


def put(origin: str, target: str) -> None:
    """Copy whole or not at all; update-grub takes what is beside it for no kernel."""
    with new_file(target) as made:
        shutil.copyfile(origin, made)


def install_modules(spec: dict[str, Any], packed: str, release: str) -> int:
    """Unpack beside and rename; what was put into extra/ of the same release stays. The count."""
    top = at(spec, "/lib/modules")
    os.makedirs(top, exist_ok=True)
    final = f"{top}/{release}"
    # Those of an earlier umlaan, where its run was killed.
    for name in (f".{release}.umlaan-new", f".{release}.umlaan-old"):
        shutil.rmtree(f"{top}/{name}", ignore_errors=True)
    with new_folder(final) as made:
        run(["tar", "-xzf", packed, "-C", made, "--no-same-owner", "--strip-components=1"])
        if os.path.isdir(f"{final}/extra"):
            shutil.copytree(f"{final}/extra", f"{made}/extra")
    run(["depmod", *(["-b", spec["root"]] if spec.get("root") else []), release])
    return modules_there(spec, release)


def install(spec: dict[str, Any]) -> None:
    """All of it, in the procedure's order. BuildError with one message where it cannot go on."""
    stamp, entry = wanted(spec)
    if stamp is None:
        raise BuildError(f"{spec['dir']}: the host kernel is not built")
    if fault := grub.grub(spec):
        raise BuildError(fault)
    release = stamp["release"]
    grub.check_loads(spec)
    grub.check_default(spec)
    # Before anything is added: a saved default that names the kernel which runs now.
    boot.keep_old(spec, anew=any(not read(at(spec, path)) for path in spec["files"]))
    prepare(spec)
    path = installed_path(spec, release)
    there = read_json(path) or {}
    whole = there.get("key") == stamp["key"] and there.get("whole", True)
    whole = whole and not any(
        "/boot/" in row or "/lib/modules" in row for row in problems(spec, stamp, entry)
    )
    if not whole:
        # Where this is cut off, what it left is known as umlaan's, and as this kernel's.
        begun = {"key": stamp["key"], "release": release, "entry": entry, "whole": False}
        write_json(path, begun)
        count = install_files(spec, stamp, release)
        there = {"key": stamp["key"], "release": release, "modules": count}
        there["sha256"] = stamp["sha256"]
    offer(spec, entry)
    write_json(path, there | {"entry": entry, "parameters": spec["parameters"]})


def install_files(spec: dict[str, Any], stamp: dict[str, Any], release: str) -> int:
    """Image, map, configuration, modules and initramfs of one release; the count of modules."""
    os.makedirs(at(spec, "/boot"), exist_ok=True)
    for name in kernel_files(stamp):
        put(f"{spec['dir']}/{name}", at(spec, f"/boot/{FILES[name]}-{release}"))
    count = 0
    if stamp["modules"]:
        say(f"modules of {release}")
        count = install_modules(spec, f"{spec['dir']}/{PACKED}", release)
    if spec["initramfs"]:
        say(f"initramfs of {release}")
        made = os.path.exists(at(spec, f"/boot/initrd.img-{release}"))
        run(["update-initramfs", "-u" if made else "-c", "-k", release])
    return count


def prepare(spec: dict[str, Any]) -> None:
    """Have grub boot its saved default before a kernel stands in /boot that nobody has tried.

    update-grub, which any package may run, lists it by itself, as the newest before all others.
    """
    # The script first: it is what destroy knows them by.
    for path in sorted(spec["files"], key=lambda path: not path.startswith("/etc/grub.d/")):
        mode = 0o755 if path.startswith("/etc/grub.d/") else 0o644
        write_atomic(at(spec, path), spec["files"][path].encode(), mode)
        os.chmod(at(spec, path), mode)


def offer(spec: dict[str, Any], entry: str) -> None:
    """Put the entry into grub's menu, beside those of ours that may still be needed."""
    rows = [row for row in read(list_path(spec)).splitlines() if row.split()[0] != entry]
    rows.append(line_of(spec, entry))
    write_atomic(list_path(spec), "".join(f"{row}\n" for row in rows).encode())
    say("grub's menu")
    run(["update-grub"])
    if entry not in grub.menu(spec):
        raise BuildError(f"update-grub made no entry {entry}; see /boot/grub/grub.cfg")


def main(argv: list[str]) -> int:
    """The ``host-kernel`` verb."""
    if argv[0] == "state":
        print(json.dumps(state(decode(argv[1]))))
        return 0
    try:
        install(load(argv[1]))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(fault_of(error, "host kernel"), file=sys.stderr)
        return 1
    return 0
