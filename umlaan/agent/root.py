"""Roots that umlaan makes: a Debian base image by content, and a copy of it for each node.

``root state SPEC`` prints what is there; ``root base SPEC`` makes the base image in the cache;
``root make SPEC NODE`` copies it (reflink or sparse). A root that exists is never made again: it
holds what its user put there. SPEC is JSON from ``umlaan.plan.root.spec``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tarfile
from typing import Any

from umlaan.agent.files import locked, read_json, write_json

# Raised where the recipe below changes what it makes.
RECIPE = 1
EPOCH = "1700000000"
UUID = "6f9e8d2a-0000-4000-8000-000000000001"
HASH_SEED = "6f9e8d2a-0000-4000-8000-000000000002"
NEEDED = (
    "usr-is-merged,openssh-server,iproute2,iputils-ping,net-tools,ca-certificates,nano,busybox,"
    "runit"
)
_TRIM = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
)
# busybox init: ssh answers two seconds after launch; systemd needs fifteen and more.
_HOOKS = (
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/resolv.conf',
    'chroot "$1" dpkg-divert --quiet --local --add --rename --divert /sbin/init.distrib /sbin/init',
    'ln -s /bin/busybox "$1"/sbin/init',
    'mkdir -p "$1"/etc/runit/runsvdir/umlaan && '
    'ln -sfn umlaan "$1"/etc/runit/runsvdir/current && '
    'rm -rf "$1"/etc/service && ln -s /etc/runit/runsvdir/current "$1"/etc/service',
    'for verb in poweroff reboot halt; do ln -s /bin/busybox "$1"/usr/local/sbin/$verb; done',
    'ln -sf ../proc/self/mounts "$1"/etc/mtab',
    'mkdir -p "$1"/etc/umlaan/rc.d "$1"/usr/src "$1"/host && rmdir "$1"/host',
    'touch "$1"/etc/resolv.conf',
)


def key_of(made: dict[str, Any]) -> str:
    """The content key of a base image."""
    inputs = {"recipe": RECIPE, "needed": NEEDED, "hooks": _HOOKS, "trim": _TRIM, **made}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:24]


def base_path(spec: dict[str, Any], made: dict[str, Any]) -> str:
    """The folder of a base image in the cache."""
    return f"{spec['cache']}/base/{key_of(made)}"


def base_ready(spec: dict[str, Any], made: dict[str, Any]) -> bool:
    """True if the image is there, whole: its stamp says how large it is."""
    home = base_path(spec, made)
    stamp = read_json(f"{home}/stamp.json")
    try:
        found = os.stat(f"{home}/root.ext4").st_size
    except OSError:
        return False
    return stamp is not None and stamp["size"] == found


def state(spec: dict[str, Any]) -> dict[str, Any]:
    """{"bases": {key: ready}, "nodes": {name: row}}; a row says what stands at the root's path."""
    answer: dict[str, Any] = {"bases": {}, "nodes": {}}
    for name, node in spec["nodes"].items():
        made = node["made"]
        row: dict[str, Any] = {"kind": "missing", "made_from": None, "key": None}
        try:
            mode = os.stat(node["path"]).st_mode
            row["kind"] = "device" if stat.S_ISBLK(mode) else "image"
            if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
                row["kind"] = "other"
        except OSError:
            pass
        if made is not None:
            row["key"] = key_of(made)
            answer["bases"][row["key"]] = base_ready(spec, made)
            row["made_from"] = (read_json(f"{node['path']}.json") or {}).get("key")
        elif row["kind"] in ("device", "image"):
            row["type"] = _type(node["path"])
        answer["nodes"][name] = row
    return answer


def _type(path: str) -> str:
    done = subprocess.run(
        ["blkid", "-p", "-o", "value", "-s", "TYPE", path], capture_output=True, text=True
    )
    return done.stdout.strip()


def mmdebstrap(made: dict[str, Any], target: str) -> list[str]:
    """The command line that unpacks the base system into a tar file."""
    packages = ",".join([NEEDED, *made["packages"]])
    words = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
    words += [f"--architectures={made['arch']}", '--aptopt=Acquire::Languages "none"']
    words += [f"--dpkgopt={option}" for option in _TRIM]
    words += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--include={packages}"]
    words += [f"--customize-hook={hook}" for hook in _HOOKS]
    words += [made["suite"], target]
    return [*words, made["mirror"]] if made["mirror"] else words


def make_base(spec: dict[str, Any], made: dict[str, Any]) -> None:
    """The base image into the cache. SystemExit, naming the command, where a step fails."""
    home = base_path(spec, made)
    with locked(f"{home}.lock", "base image", wait=1800):
        if base_ready(spec, made):
            return
        work = f"{home}.work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
        os.makedirs(work)
        _call(mmdebstrap(made, f"{work}/root.tar"))
        with tarfile.open(f"{work}/root.tar") as archive:
            os.makedirs(f"{work}/root")
            archive.extractall(f"{work}/root", filter="fully_trusted", numeric_owner=True)
        os.unlink(f"{work}/root.tar")
        image = f"{work}/root.ext4"
        with open(image, "wb") as file:
            file.truncate(made["bytes"])
        words = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "umlaan", "-m", "1"]
        words += ["-U", UUID, "-J", "size=16", "-O", "^orphan_file,^metadata_csum_seed"]
        words += ["-E", f"hash_seed={HASH_SEED},lazy_itable_init=0,lazy_journal_init=0"]
        _call([*words, "-d", f"{work}/root", image])
        shutil.rmtree(f"{work}/root")
        write_json(f"{work}/stamp.json", {"made": made, "size": made["bytes"]})
        os.rename(work, home)


def _call(command: list[str]) -> None:
    print(f"# {command[0]}", flush=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "E2FSPROGS_FAKE_TIME": EPOCH}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment)
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit code {done.returncode}")


def make(spec: dict[str, Any], name: str) -> None:
    """A node's own copy of the base image, beside and renamed; one that exists stays."""
    node = spec["nodes"][name]
    path = node["path"]
    if os.path.lexists(path):
        return
    made = node["made"]
    if not base_ready(spec, made):
        raise SystemExit(f"{name}: its base image is not there; the base image's stage makes it")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    source, beside = f"{base_path(spec, made)}/root.ext4", f"{path}.new"
    _call(["cp", "--reflink=auto", "--sparse=always", source, beside])
    with open(beside, "rb") as file:
        os.fsync(file.fileno())
    write_json(f"{path}.json", {"key": key_of(made), "made": made})
    os.rename(beside, path)


def main(argv: list[str]) -> int:
    """The ``root`` verb: state, base, make."""
    verb, spec = argv[0], json.loads(argv[1])
    if verb == "state":
        print(json.dumps(state(spec)))
    elif verb == "base":
        for node in spec["nodes"].values():
            if node["made"] is not None:
                make_base(spec, node["made"])
    else:
        make(spec, argv[2])
    return 0
