"""grub on the lab host: what runs, what boots next, and a new kernel tried once.

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
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

from umlaan.agent.chamber import BuildError
from umlaan.agent.files import fault_of, read_json, write_atomic, write_json
from umlaan.agent.machine import MARK, at, read, run, running
from umlaan.agent.spec import decode

TOOLS = ("grub-editenv", "grub-reboot", "grub-set-default", "update-grub")


def entry_of(spec: dict[str, Any], key: str) -> str:
    """The wanted entry: it names the kernel's content and everything it is booted with."""
    named = [key, spec["parameters"], spec["initramfs"], spec["panic"]]
    return f"umlaan-{hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]}"


def environment(spec: dict[str, Any]) -> dict[str, str]:
    """grub's environment block: saved_entry, next_entry and the like."""
    lines = read(at(spec, "/boot/grub/grubenv")).splitlines()
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name: value for name, equals, value in pairs if equals}


_ENTRY = re.compile(r"^\s*(menuentry|submenu)\s+(?:'([^']*)'|\"([^\"]*)\")(.*)\{\s*$")
_ID = re.compile(r"(?:--id|\$menuentry_id_option)\s+(?:'([^']+)'|\"([^\"]+)\")")


def entries(text: str) -> dict[str, str]:
    """{id, submenus before it with >: its linux line} of a grub.cfg; without an id its title."""
    found: dict[str, str] = {}
    open_: list[str] = []
    for line in text.splitlines():
        if match := _ENTRY.match(line):
            named = _ID.search(match[4])
            open_.append((named[1] or named[2]) if named else (match[2] or match[3]))
            if match[1] == "menuentry":
                found[">".join(open_)] = ""
        elif open_ and line.strip() == "}":
            open_.pop()
        elif open_ and (words := line.split()) and words[0] in ("linux", "linux16", "linuxefi"):
            found[">".join(open_)] = " ".join(words[1:])
    return found


def entry_of_release(menu: dict[str, str], release: str) -> str | None:
    """The entry that boots a release for certain: the most deeply named, no recovery one."""
    good = [
        name
        for name, line in menu.items()
        if line.split(" ")[0].endswith(f"vmlinuz-{release}")
        and not {"single", "recovery"} & set(line.split())
        and MARK not in line
    ]
    return max(good, key=lambda name: name.count(">"), default=None)


def release_of(line: str) -> str:
    """The release that an entry's linux line boots; empty where its image's name has none."""
    image = os.path.basename(line.split(" ")[0])
    return image.removeprefix("vmlinuz-") if image.startswith("vmlinuz-") else ""


def menu(spec: dict[str, Any]) -> dict[str, str]:
    """The entries that grub offers now."""
    return entries(read(at(spec, "/boot/grub/grub.cfg")))


def trial_path(spec: dict[str, Any]) -> str:
    """The record of the last trial."""
    return f"{spec['state_dir']}/host-kernel/trial.json"


def grub(spec: dict[str, Any]) -> str | None:
    """In words why grub cannot be used here; None where it can."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}: this machine does not boot by grub, or lacks grub2-common"
    if not os.path.exists(at(spec, "/boot/grub/grub.cfg")):
        return "/boot/grub/grub.cfg is not there: run update-grub once"
    if not os.path.exists(at(spec, "/boot/grub/grubenv")):
        return "/boot/grub/grubenv is not there: run grub-editenv create once"
    return another_labs(spec)


def list_of(text: str) -> str | None:
    """The list that a script of umlaan's in /etc/grub.d reads; None where it is no such script."""
    line = next((row for row in text.splitlines() if row.startswith("list=")), None)
    return next(iter(shlex.split(line[5:])), None) if line else None


def another_labs(spec: dict[str, Any]) -> str | None:
    """In words that grub serves another lab, which both its script and its list say."""
    for path in spec["files"]:
        other = list_of(read(at(spec, path)))
        if other and other != list_path(spec) and os.path.exists(other):
            return (
                f"{path} offers the host kernels of another lab ({other}): a machine has one host "
                "kernel; destroy that lab, or leave host_kernel out of this one"
            )
    return None


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
    run(["grub-set-default", found["fallback"]])


# Reads what grub-mkconfig does, up to the file after ours that sets another default.
_DEFAULTS = """
for path; do
    if [ -z "$path" ]; then ours=1 GRUB_DEFAULT=saved; continue; fi
    [ ! -r "$path" ] || . "$path" >/dev/null 2>&1
    [ -z "$ours" ] || [ "$GRUB_DEFAULT" = saved ] || { echo "$path"; exit; }
done
"""


def overruled(spec: dict[str, Any]) -> str | None:
    """The file in /etc/default/grub.d that sets GRUB_DEFAULT after ours; None where none does."""
    ours = next(p for p in spec["files"] if p.startswith("/etc/default/"))
    paths = sorted({*glob.glob(f"{glob.escape(at(spec, os.path.dirname(ours)))}/*.cfg")})
    before = [path for path in paths if path < at(spec, ours)]
    after = [path for path in paths if path > at(spec, ours)]
    if not after:
        return None
    words = ["sh", "-c", _DEFAULTS, "sh", at(spec, "/etc/default/grub"), *before, "", *after]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return done.stdout.decode(errors="replace").strip() or None


def check_default(spec: dict[str, Any]) -> None:
    """BuildError where grub would not boot its saved default: then nothing is tried only once."""
    if path := overruled(spec):
        raise BuildError(
            f"{path} sets GRUB_DEFAULT after umlaan.cfg: grub would not boot its saved default, so "
            "that there would be no way back to the old kernel. Take that line out, or name the "
            "file so that it is read before"
        )


# Where grub can read but not write: it could not forget the entry that it tries.
_UNWRITABLE = {"btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs"}


def check_writable(spec: dict[str, Any]) -> None:
    """BuildError where grub cannot write its environment: a trial would be tried for ever."""
    for target in ("fs", "abstraction"):
        words = ["grub-probe", f"--target={target}", at(spec, "/boot/grub")]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        found = done.stdout.decode(errors="replace").split()
        bad = found if target == "abstraction" else sorted(_UNWRITABLE & set(found))
        if bad:
            raise BuildError(
                f"/boot/grub is on {', '.join(bad)}, where grub cannot write: it could not forget "
                "the kernel that it tries once; a /boot of its own (ext4) is needed"
            )


def arm(spec: dict[str, Any]) -> None:
    """The next boot tries the wanted entry, once. BuildError where there is no way back."""
    entry, release = spec["entry"], spec["release"]
    check_writable(spec)
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


def list_path(spec: dict[str, Any]) -> str:
    """The list that the script in /etc/grub.d reads: an entry a line."""
    return f"{spec['state_dir']}/host-kernel/entries"


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
        if os.path.lexists(path):
            os.unlink(path)
    # With what an install that was cut off had unpacked beside.
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
