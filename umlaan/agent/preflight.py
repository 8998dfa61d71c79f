"""``probe SPEC``: what this machine is and has, as one JSON value, before anything is changed.

SPEC is JSON: {"lab", "state_dir", "cache_dir", "namespace": bool, "pid_namespace": bool,
"paths": [...], "memory_folders": [...], "theirs": [[path, around], ...]}.
Nothing is written, and no network is used. plan/preflight.py judges the answer.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
from typing import Any

from umlaan.agent import mark, trust
from umlaan.agent.unpack import kind_of

COMMANDS = ("apt-get", "ip", "unshare", "nsenter", "losetup", "mke2fs", "mmdebstrap", "ccache")
FILE_SYSTEMS = "/proc/filesystems"


def existing(path: str) -> str:
    """The path itself, or its nearest parent that is there."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    return path


def disk(path: str) -> dict[str, Any]:
    """Space and inodes left for root where a path is, or will be. Sizes in bytes."""
    there = existing(path)
    status = os.statvfs(there)
    return {
        "path": path,
        "mount": mount_point(there),
        "device": os.stat(there).st_dev,
        "free": status.f_bavail * status.f_frsize,
        "size": status.f_blocks * status.f_frsize,
        "free_inodes": status.f_favail if status.f_files else None,
        "read_only": bool(status.f_flag & os.ST_RDONLY),
    }


def mount_point(path: str) -> str:
    """Where the file system begins that holds an existing path."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def memory_folder(path: str) -> dict[str, Any]:
    """A folder in which UML keeps a node's memory. Sizes in bytes."""
    if not os.path.isdir(path):
        return {"path": path, "there": False}
    status = os.statvfs(path)
    return {
        "path": path,
        "there": True,
        "noexec": bool(status.f_flag & os.ST_NOEXEC),
        "size": status.f_blocks * status.f_frsize,
        "free": status.f_bavail * status.f_frsize,
    }


def openable(path: str) -> str:
    """Empty if the device opens for reading and writing, else why it does not."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def unshare(*kinds: str) -> str:
    """Empty if a process can have these namespaces of its own, else unshare's own words."""
    command = ["unshare", *(f"--{kind}" for kind in kinds)]
    if "pid" in kinds:
        command.append("--fork")
    try:
        done = subprocess.run(
            [*command, "true"], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""


def release() -> dict[str, str]:
    """/etc/os-release as a dictionary."""
    found = {}
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                key, sign, value = line.strip().partition("=")
                if sign:
                    found[key] = value.strip("\"'")
    except OSError:
        pass
    return found


def memory() -> dict[str, int]:
    """MemTotal and MemAvailable of /proc/meminfo in bytes."""
    with open("/proc/meminfo", encoding="ascii") as file:
        rows = dict(line.split(":", 1) for line in file)
    return {key: int(rows[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable")}


def mounts_ext4() -> bool:
    """Whether the kernel has ext4, or may load it."""
    with open(FILE_SYSTEMS, encoding="ascii") as file:
        if "ext4" in file.read().split():
            return True
    return os.path.isdir(f"/lib/modules/{platform.release()}")


def filled(folder: str) -> list[str]:
    """The names in a folder, none where there is none: what an earlier run left to build upon."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def identity(path: str) -> tuple[int, int] | None:
    """What a path leads to, by whatever name, link or mount; None where nothing is."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (-1, info.st_rdev) if stat.S_ISBLK(info.st_mode) else (info.st_dev, info.st_ino)


def within(path: str, folder: str) -> bool:
    """Whether a path leads to a folder or below it, the links and mounts on both ways followed."""
    real, top = os.path.realpath(path), os.path.realpath(folder)
    wanted = identity(top)
    while True:
        if real == top or (wanted is not None and identity(real) == wanted):
            return True
        if real == "/":
            return False
        real = os.path.dirname(real)


def clashes(theirs: list[list[Any]], folders: tuple[str, ...]) -> list[list[str]]:
    """[path of the user's, folder of the lab's, in or around] of those that lie in one another."""
    rows = []
    for path, around in theirs:
        for folder in folders:
            if within(path, folder):
                rows.append([path, folder, "in"])
            elif around and within(folder, path):
                rows.append([path, folder, "around"])
    return rows


def twice(paths: list[str]) -> list[list[str]]:
    """Pairs of the given names that lead to one and the same file or device."""
    seen: dict[tuple[int, int], str] = {}
    rows = []
    for path in paths:
        found = identity(path)
        if found is None or os.path.isdir(path):
            continue
        if found in seen:
            rows.append([seen[found], path])
        seen.setdefault(found, path)
    return rows


def not_own(spec: dict[str, Any]) -> dict[str, str]:
    """{key: fault} of the folders from which root runs and believes what lies there."""
    faults = {key: trust.fault_of(spec[key], shared=False) for key in ("state_dir", "cache_dir")}
    return {key: fault for key, fault in faults.items() if fault}


def probe(spec: dict[str, Any]) -> dict[str, Any]:
    """All of it. Reads only; the namespaces that it tries end with their process."""
    state, cache = spec["state_dir"], spec["cache_dir"]
    kinds = ["mount"] + ["net"] * bool(spec["namespace"]) + ["pid"] * bool(spec["pid_namespace"])
    os_release = release()
    return {
        "uid": os.geteuid(),
        "tun": openable("/dev/net/tun"),
        "loop": openable("/dev/loop-control"),
        "namespaces": kinds,
        "unshare": unshare(*kinds),
        "disks": [disk(state), disk(cache)],
        "memory_folders": [memory_folder(path) for path in spec["memory_folders"]],
        "memory": memory(),
        "ext4": mounts_ext4(),
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "os": os_release.get("ID", ""),
        "os_like": os_release.get("ID_LIKE", ""),
        "os_version": os_release.get("VERSION_ID", ""),
        "os_name": os_release.get("PRETTY_NAME", "an unknown system"),
        "python": list(sys.version_info[:3]),
        "systemd": os.path.isdir("/run/systemd/system"),
        "cgroup_v1_memory": os.path.isdir("/sys/fs/cgroup/memory"),
        "commands": {name: shutil.which(name) for name in COMMANDS},
        "kernels": filled(f"{cache}/kernel"),
        "bases": filled(f"{cache}/base"),
        "nodes": [
            name
            for name in filled(f"{state}/nodes")
            if os.path.exists(f"{state}/nodes/{name}/root.ext4")
        ],
        "not_own": not_own(spec),
        "state": mark.summary(spec.get("lab", ""), state),
        "clashes": clashes(spec.get("theirs", []), (state, cache)),
        "twice": twice(spec["paths"]),
        "kinds": {path: kind_of(path) for path, _ in spec.get("theirs", [])},
        "missing_paths": [path for path in spec["paths"] if not os.path.exists(path)],
    }


def main(argv: list[str]) -> int:
    """The ``probe`` verb."""
    print(json.dumps(probe(json.loads(argv[0]))))
    return 0
