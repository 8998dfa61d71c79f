"""The services of one side of the DVS: written, started, restarted and ended.

Under what keeps them there: systemd, runit, sysvinit, or umlaan's own supervisor.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import tarfile
from typing import Any

from umlaan.agent import dvslook, supervise, sysvinit
from umlaan.agent.dvslook import Side


class NotUp(Exception):
    """Why a side did not come up; the message is for its user."""


def there(side: Side, step: str, script: str, data: bytes | None = None, wait: float = 60) -> str:
    """Run a script on a side. NotUp, naming the step and what was said, if it fails."""
    code, output, errors = dvslook.run_there(side, script, data, wait * dvslook.slow(side))
    if code:
        said = "\n".join(f"    {line}" for line in (errors + output).splitlines()[-8:])
        raise NotUp(f"{side['name']}: {step}: exit code {code}\n{said}")
    return output


def packed(files: dict[str, str]) -> bytes:
    """Files as one tar, for one connection."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            data = text.encode()
            info.size, info.mode = len(data), 0o644 if path.endswith(".service") else 0o755
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write(side: Side, files: dict[str, str]) -> None:
    """Write files beside, rename each into place."""
    folder = shlex.quote(side["folder"])
    inside = [path for path in files if path.startswith(f"{side['folder']}/")]
    lines = [
        "set -e",
        f"mkdir -p {shlex.quote(os.path.dirname(side['folder']))}",
        f"new=$(mktemp -d {folder}.new.XXXXXX)",
        "trap 'rm -rf \"$new\"' EXIT",
        'tar -xpf - --no-same-owner -C "$new"',
        # The first time as a whole: in a guest each file on its own would cost two processes.
        f'if [ ! -e {folder} ]; then mv "$new"{folder} {folder}; else :',
        *_renamed(inside),
        "fi",
        *_renamed([path for path in files if path not in inside]),
    ]
    there(side, "write its services", "\n".join(lines), packed(files))


def _renamed(paths: list[str]) -> list[str]:
    """Each unpacked file renamed into its place."""
    folders = sorted({shlex.quote(os.path.dirname(path)) for path in paths})
    lines = [f"mkdir -p {' '.join(folders)}"] if folders else []
    return lines + [f'mv -f "$new"{shlex.quote(path)} {shlex.quote(path)}' for path in paths]


def follow(side: Side, kind: str, order: dict[str, Any]) -> None:
    """Have the wanted services run, the changed ones anew, the others gone."""
    folder, gone, changed = side["folder"], order["gone"], order["restart"]
    for name in gone:
        lines = _end_lines(side, kind, name)
        there(side, f"end {name}", "\n".join([*lines, f"rm -rf {shlex.quote(f'{folder}/{name}')}"]))
    if kind == "own":
        for name in changed:
            again(side, kind, name)
        supervise.sync(folder, side["run"], side["log"])
        return
    lines = []
    if kind == "sysvinit":
        lines = sysvinit.keepers_end(side) if f"{folder}/keep" in order["files"] else []
        lines += [*sysvinit.follow(side), *(sysvinit.again(side, name) for name in changed)]
        there(side, "start its services", "\n".join([*lines, "true"]))
        return
    if kind == "runit":
        names = " ".join(side["services"])
        lines += service_links(side)
        # A service that runsvdir has not seen yet starts with its new file anyway.
        if changed:
            lines.append(f"sv -w 7 force-restart {' '.join(changed)} >/dev/null 2>&1")
        if names:
            lines.append(f"sv up {names} >/dev/null 2>&1")
    else:
        units = {name: dvslook.unit(side, name) for name in ["dvs-up", *side["services"]]}
        lines = [f"systemctl enable --quiet {' '.join(units.values())}"]
        lines += [f"systemctl restart {units[name]}" for name in changed if name in units]
        lines += [f"systemctl start {' '.join(units.values())}"]
    there(side, "start its services", "\n".join([*lines, "true"]))


def service_links(side: Side) -> list[str]:
    """What runit needs beside the scripts: few processes, a guest's cost 21 ms each."""
    if not side["services"]:
        return []
    return [
        # An older umlaan had a log process for each service.
        f"for n in {' '.join(side['services'])}; do p={shlex.quote(side['folder'])}/$n; "
        "[ ! -d $p/log ] || rm -rf $p/log; "
        "[ -L $p/supervise ] || ln -sfn /run/runit/supervise/$n $p/supervise; "
        "[ -L /etc/service/$n ] || ln -sfn $p /etc/service/$n; done"
    ]


def again(side: Side, kind: str, name: str) -> None:
    """End a service that its supervisor starts again; one whose processes are stopped, too."""
    if kind == "own":
        found = (supervise.status(side["run"]) or {"services": {}})["services"].get(name)
        if found and found["up"]:
            for number in (signal.SIGTERM, signal.SIGCONT):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(found["pid"], number)
        return
    if kind == "sysvinit":
        there(side, f"restart {name}", sysvinit.again(side, name))
        return
    unit = dvslook.unit(side, name)
    line = f"systemctl restart {unit}" if kind == "systemd" else f"sv -w 7 force-restart {name}"
    there(side, f"restart {name}", f"{line} >/dev/null 2>&1; true")


def end(side: Side, kind: str) -> None:
    """End all services of a side; under systemd also what made its DC."""
    if kind == "own":
        supervise.stop(side["run"])
    elif kind == "sysvinit":
        there(side, "end its services", "\n".join([*sysvinit.away(side), "true"]))
    else:
        lines = []
        for name in [*side["services"], "dvs-up"] if kind == "systemd" else side["services"]:
            unit = dvslook.unit(side, name)
            stop = f"systemctl stop {unit}" if kind == "systemd" else f"sv -w 7 force-stop {name}"
            lines.append(f"{stop} >/dev/null 2>&1")
        there(side, "end its services", "\n".join([*lines, "true"]))


def away(side: Side, kind: str) -> None:
    """End the services of this machine, and take them from what would start them again."""
    stand = [name for name in names_in(side["folder"]) if name not in side["services"]]
    for name in [*side["services"], *stand, "dvs-up"]:
        lines = _end_lines(side, kind, name)
        if lines:
            there(side, f"remove {name}", "\n".join([*lines, "true"]))


def forget(side: Side, kind: str, gone: list[str]) -> None:
    """Files and links of services gone before the next start; one that runs is left alone."""
    lines = []
    for name in gone:
        unit = dvslook.unit(side, name)
        if kind == "systemd":
            lines += [f"systemctl disable --quiet {unit}; rm -f /etc/systemd/system/{unit}"]
        elif kind == "runit":
            lines += [f"rm -f /etc/service/{name}"]
        lines += [f"rm -rf {shlex.quote(side['folder'] + '/' + name)}"]
    if lines:
        there(side, "take away what is no longer wanted", "\n".join([*lines, "true"]))


def _end_lines(side: Side, kind: str, name: str) -> list[str]:
    if kind == "runit":
        # The link first: runsvdir would start it again.
        path = shlex.quote(f"{side['folder']}/{name}")
        return [f"rm -f /etc/service/{name}; sv -w 7 force-shutdown {path} >/dev/null 2>&1"]
    if kind == "systemd":
        unit = dvslook.unit(side, name)
        return [
            f"systemctl disable --quiet --now {unit} 2>/dev/null",
            f"rm -f /etc/systemd/system/{unit}; systemctl daemon-reload",
        ]
    return []


def names_in(folder: str) -> list[str]:
    """The services that stand in a folder of this machine."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    return []
