"""What the lab host boots next, and a new kernel tried once; what grub says is in grub.py.

``boot state WORD`` prints what is; ``boot arm WORD`` lets grub try the wanted entry at the next
boot, once; ``boot settle WORD`` judges after it: the entry stays if it runs and passes its checks.
Until then the saved default is the old kernel, so that a panic, a hang or a cut of the power leads
back to it.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any

from umlaan.agent.atomic import sweep
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import fault_of, read_json, write_atomic, write_json
from umlaan.agent.grub import (
    check_default,
    check_loads,
    check_writable,
    entry_of_release,
    environment,
    grub,
    list_path,
    menu,
    release_of,
)
from umlaan.agent.machine import at, read, run, running
from umlaan.agent.spec import decode


def entry_of(spec: dict[str, Any], key: str) -> str:
    """The wanted entry: it names the kernel's content and everything it is booted with."""
    named = [key, spec["parameters"], spec["initramfs"], spec["panic"]]
    return f"umlaan-{hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]}"


def trial_path(spec: dict[str, Any]) -> str:
    """The record of the last trial."""
    return f"{spec['state_dir']}/host-kernel/trial.json"


def state(spec: dict[str, Any]) -> dict[str, Any]:
    """running, saved, next, the trial's record, the entry to go back to, grub's own faults."""
    now, block = running(spec), environment(spec)
    offered = menu(spec)
    saved = block.get("saved_entry", "")
    return {
        "running": now,
        "saved": saved,
        "next": block.get("next_entry", ""),
        "trial": read_json(trial_path(spec)),
        "fallback": now["entry"] or entry_of_release(offered, now["release"]),
        "saved_is_there": saved in offered,
        "next_release": release_of(offered.get(block.get("next_entry") or saved, "")),
        "grub": grub(spec),
    }


def before_path(spec: dict[str, Any]) -> str:
    """What grub's saved default was before the lab's first host kernel, and what was set since."""
    return f"{spec['state_dir']}/host-kernel/default-before.json"


def keep_old(spec: dict[str, Any], *, anew: bool) -> None:
    """Make the running kernel's entry the saved default, where none is or anew."""
    found = state(spec)
    if found["saved_is_there"] and not anew:
        return
    if not found["fallback"]:
        raise BuildError(
            f"grub has no entry for the running kernel {found['running']['release']}: there would "
            "be nothing to go back to, so nothing was changed (update-grub makes one)"
        )
    # A lab that has kernels in the menu has set it before this was written down.
    first = {"saved_entry": found["saved"], "set": []} if not read(list_path(spec)) else None
    before = read_json(before_path(spec)) or first
    if isinstance(before, dict) and found["fallback"] not in before["set"]:
        write_json(before_path(spec), {**before, "set": [*before["set"], found["fallback"]]})
    run(["grub-set-default", found["fallback"]])


def arm(spec: dict[str, Any]) -> None:
    """The next boot tries the wanted entry, once. BuildError where there is no way back."""
    entry, release = spec["entry"], spec["release"]
    check_writable(spec)
    check_loads(spec)
    check_default(spec)
    # Confirmed once, and not what runs: the old kernel was booted by hand, or had to be.
    keep_old(spec, anew=environment(spec).get("saved_entry") == entry)
    found = state(spec)
    if found["saved"] == entry:
        raise BuildError(f"{entry} is the saved default already: there would be no way back")
    if entry not in menu(spec):
        raise BuildError(f"grub's menu has no entry {entry}")
    record = {"entry": entry, "release": release, "state": "armed"}
    before = found["running"]
    record |= {"boot_id": before["boot_id"], "before": before["release"], "back": found["saved"]}
    run(["grub-reboot", entry])
    if environment(spec).get("next_entry") != entry:
        raise BuildError("grub-reboot left no next_entry in /boot/grub/grubenv")
    # Only now: what was never armed did not fail at the next boot.
    write_json(trial_path(spec), record)
    os.sync()


def checks(spec: dict[str, Any]) -> list[str]:
    """Run the checks of the booted machine; a line for each that failed."""
    failed = []
    for command in spec["checks"]:
        print(f"check: {command}", flush=True)
        try:
            done = subprocess.run(
                ["sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=300,
                check=False,
            )
        except subprocess.TimeoutExpired:
            failed.append(f"{command}: not done after 300 s")
            continue
        text = done.stdout.decode(errors="replace").strip()
        print(text, flush=True)
        if done.returncode:
            last = text.splitlines()[-1] if text else ""
            failed.append(f"{command}: exit code {done.returncode}{': ' if last else ''}{last}")
    return failed


def settle(spec: dict[str, Any]) -> list[str]:
    """Judge the trial: keep the entry or say why not, a line each."""
    entry, now = spec["entry"], running(spec)
    record = read_json(trial_path(spec)) or {}
    record |= {"entry": entry, "release": spec["release"], "after": now["release"]}
    if now["entry"] != entry:
        came = now["release"]
        if came == spec["release"]:
            came += f" by entry {now['entry']}" if now["entry"] else " by an entry not umlaan's"
        record |= {"state": "failed", "why": f"the machine came back with {came}"}
        write_json(trial_path(spec), record)
        return [record["why"]]
    failed = checks(spec)
    if failed:
        write_json(trial_path(spec), record | {"state": "refused", "why": "; ".join(failed)})
        return failed
    before = environment(spec).get("saved_entry", "")
    run(["grub-set-default", entry])
    os.sync()
    write_json(trial_path(spec), record | {"state": "confirmed", "why": ""})
    prune(spec, {entry, before})
    return []


def prune(spec: dict[str, Any], keep: set[str]) -> None:
    """Remove kernels of ours that neither run nor are named: the new one and the one before."""
    here = running(spec)
    stamps, entries_ = stamps_of(spec), keep | {here["entry"]}
    listed = read(list_path(spec)).splitlines()
    # By the list as well: a stamp names the newest entry alone, which may never have been tried.
    kept = {line.split()[1] for line in listed if line.split()[0] in entries_}
    kept |= {s["release"] for s in stamps.values() if s["entry"] in entries_}
    kept.add(here["release"])
    gone = [path for path, stamp in stamps.items() if stamp["release"] not in kept]
    for path in gone:
        remove(spec, path, stamps[path]["release"])
    rows = [line for line in listed if line.split()[0] in entries_]
    if rows != listed:
        write_atomic(list_path(spec), "".join(f"{line}\n" for line in rows).encode())
        run(["update-grub"])


def stamps_of(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{path of its stamp: the stamp} of each kernel of ours that is installed."""
    paths = glob.glob(f"{glob.escape(spec['state_dir'])}/host-kernel/installed/*")
    found = {path: read_json(path) for path in sorted(paths)}
    return {path: stamp for path, stamp in found.items() if isinstance(stamp, dict)}


def remove(spec: dict[str, Any], stamp: str, release: str) -> None:
    """Remove one installed kernel of ours."""
    print(f"remove host kernel {release}", flush=True)
    for name in ("vmlinuz", "System.map", "config", "initrd.img"):
        path = at(spec, f"/boot/{name}-{release}")
        sweep(path)
        if os.path.lexists(path):
            os.unlink(path)
    # With what an install that was cut off had unpacked beside.
    sweep(at(spec, f"/lib/modules/{release}"))
    for name in (release, f".{release}.umlaan-new", f".{release}.umlaan-old"):
        shutil.rmtree(at(spec, f"/lib/modules/{name}"), ignore_errors=True)
    known = at(spec, f"/var/lib/initramfs-tools/{release}")
    if os.path.exists(known):
        os.unlink(known)
    os.unlink(stamp)


def main(argv: list[str]) -> int:
    """The ``boot`` verb."""
    spec = decode(argv[1])
    try:
        if argv[0] == "arm":
            arm(spec)
        elif argv[0] == "settle":
            failed = settle(spec)
            for line in failed:
                print(line, file=sys.stderr)
            return 1 if failed else 0
        else:
            print(json.dumps(state(spec)))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(fault_of(error, "boot"), file=sys.stderr)
        return 1
    return 0
