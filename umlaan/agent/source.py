"""Where a source comes from, and its identity: package, tarball, URL or directory.

An unpacked source stands in CACHE/source/HASH, made beside and renamed: a folder of that name is
whole. The user's own directory is only read.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import Any

from umlaan.agent import apt, trees
from umlaan.agent import unpack as unpacking
from umlaan.agent.atomic import new_file, new_folder, put, scratch_beside
from umlaan.agent.chamber import BuildError, say
from umlaan.agent.files import read_json, write_json
from umlaan.agent.index import Index, hash_file

Identity = dict[str, Any]


def file_hash(path: str, cache: str) -> str:
    """sha256 of one file through the index. OSError if it cannot be read."""
    index = Index(cache, path)
    digest = index.digest("", path, os.stat(path))
    index.save()
    return digest


def package_file(source: dict[str, Any], cache: str) -> tuple[str, str] | None:
    """(file, version) of a source package that is installed or was downloaded; None if neither."""
    name, suite = source["package"], source.get("suite")
    if not suite or suite == apt.own_suite():
        version = apt.installed(name)
        found = sorted(glob.glob(f"/usr/src/{name}.tar.*"))
        if version and found:
            return found[0], version
    record = read_json(f"{_downloads(source, cache)}/record.json")
    if isinstance(record, dict) and os.path.exists(record["file"]):
        return record["file"], record["version"]
    return None


def _downloads(source: dict[str, Any], cache: str) -> str:
    return f"{cache}/source/deb/{source['package']}@{source.get('suite') or apt.own_suite()}"


def identify(source: dict[str, Any], cache: str) -> Identity:
    """label, hash (None: not fetched yet), version of the kernel, file, problem; reads little."""
    out: Identity = {"label": "", "hash": None, "version": None, "file": None, "problem": None}
    if directory := source.get("directory"):
        out["label"] = directory
        if not os.path.isfile(f"{directory}/Makefile"):
            there = "has no Makefile" if os.path.isdir(directory) else "no such directory"
            out["problem"] = f"kernel.source: {directory}: {there}"
            return out
        out["hash"] = trees.content_hash(directory, cache)
        out["version"] = version_of(directory)
        return out
    if name := source.get("package"):
        out["label"] = f"{name} of {source['suite']}" if source.get("suite") else name
        found = package_file(source, cache)
        if found:
            out["file"] = found[0]
            out["label"] += f" {found[1]}"
    elif tarball := source.get("tarball"):
        out["label"] = out["file"] = tarball
        if not os.path.isfile(tarball):
            kind = unpacking.kind_of(tarball)
            what = "no such file" if kind == "nothing" else f"is a {kind}, not a tarball"
            out["problem"] = f"kernel.source: {tarball}: {what}"
            return out
    else:
        out["label"], out["hash"] = source["url"], source["sha256"]
        kept = f"{cache}/source/url/{source['sha256']}"
        out["file"] = kept if os.path.exists(kept) else None
    if out["file"] and not out["hash"]:
        out["hash"] = file_hash(out["file"], cache)
    wanted = source.get("sha256")
    if wanted and out["hash"] and wanted != out["hash"]:
        out["problem"] = f"kernel.source: {out['label']}: sha256 {out['hash']}, wanted {wanted}"
    if out["hash"]:
        out["version"] = version_of(unpacked(out["hash"], cache))
    return out


def version_of(tree: str) -> str | None:
    """VERSION.PATCHLEVEL.SUBLEVEL from the top Makefile; None if there is none."""
    try:
        with open(f"{tree}/Makefile", encoding="utf-8", errors="replace") as file:
            text = file.read(4096)
    except OSError:
        return None
    parts = [re.search(rf"^{key} *= *(\d+)", text, re.M) for key in _VERSION]
    return ".".join(part[1] for part in parts if part) if parts[0] else None


_VERSION = ("VERSION", "PATCHLEVEL", "SUBLEVEL")


def unpacked(digest: str, cache: str) -> str:
    """Where the tree of a tarball of that hash stands once it is unpacked."""
    return f"{cache}/source/{digest[:24]}"


def fetch(source: dict[str, Any], cache: str) -> None:
    """Bring a package or URL that is not here yet. BuildError, naming it, if that fails."""
    if source.get("package") and not package_file(source, cache):
        folder = _downloads(source, cache)
        os.makedirs(folder, exist_ok=True)
        deb = apt.download(source["package"], source.get("suite"), folder)
        extract_deb(source["package"], deb, folder)
    elif source.get("url"):
        target = f"{cache}/source/url/{source['sha256']}"
        if not os.path.exists(target):
            download_url(source["url"], source["sha256"], target)


def extract_deb(package: str, deb: str, folder: str) -> None:
    """Take the tarball out of a linux-source package and note its version, the record last."""
    with scratch_beside(f"{folder}/record.json") as beside:
        subprocess.run(["dpkg-deb", "-x", deb, beside], check=True)
        found = sorted(glob.glob(f"{beside}/usr/src/{package}.tar.*"))
        if not found:
            raise BuildError(
                f"{package}: holds no /usr/src/{package}.tar.*: no kernel source package"
            )
        target = f"{folder}/{os.path.basename(found[0])}"
        put(found[0], target)
    version = os.path.basename(deb).split("_")[1].replace("%3a", ":")
    write_json(f"{folder}/record.json", {"file": target, "version": version})
    os.unlink(deb)


def download_url(url: str, sha256: str, target: str) -> None:
    """Download beside, check, rename. BuildError names what came instead."""
    say(f"download {url}")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with new_file(target) as beside:
        command = ["curl", "-fsSL", "--retry", "2", "-o", beside, url]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise BuildError(f"{url}: {said or 'curl failed'}")
        found = hash_file(beside)
        if found != sha256:
            raise BuildError(f"{url}: sha256 is {found}, wanted {sha256}; nothing of it was kept")


def unpack(identity: Identity, cache: str) -> str:
    """The tree of a tarball, unpacked once. BuildError if it is no tree of a kernel."""
    target = unpacked(identity["hash"], cache)
    if os.path.isdir(target):
        return target
    with new_folder(target) as beside:
        say(f"unpack {identity['file']}")
        unpacking.unpack(identity["file"], beside, "--strip-components=1")
        if version_of(beside) is None:
            raise BuildError(f"{identity['file']}: no Makefile of a kernel in its top folder")
    return target
