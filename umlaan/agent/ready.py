"""A kernel that is built already: a binary of the user's, or Debian's user-mode-linux package."""

from __future__ import annotations

import errno
import glob
import os
import subprocess
from typing import Any

from umlaan.agent import apt, kconfig, sandbox, source
from umlaan.agent.atomic import new_folder
from umlaan.agent.chamber import BuildError, say
from umlaan.agent.visible import word


def _unpacked(spec_source: dict[str, Any], cache: str) -> str:
    return f"{cache}/source/deb/{spec_source['package']}@{spec_source.get('suite')}/root"


def _binary(spec_source: dict[str, Any], cache: str) -> tuple[str | None, str]:
    """(the binary or None, the root that its package is unpacked in)."""
    if spec_source.get("directory"):
        return spec_source["directory"], ""
    name, suite = spec_source["package"], spec_source.get("suite")
    root = "" if not suite or suite == apt.own_suite() else _unpacked(spec_source, cache)
    if not root and apt.installed(name) is None:
        return None, root
    for place in (f"{root}/usr/bin/linux.uml", f"{root}/usr/bin/linux"):
        if os.path.isfile(place):
            return place, root
    return None, root


def identify(spec_source: dict[str, Any], cache: str) -> source.Identity:
    """label, hash, file and problem of a ready kernel; no hash while its package is not here."""
    file, root = _binary(spec_source, cache)
    name = spec_source.get("package")
    label = str(file if name is None else name)
    if name and not root and (version := apt.installed(name)):
        label += f" {version}"
    elif name and root:
        label += f" of {spec_source['suite']}"
    out: source.Identity = {
        "label": label,
        "hash": None,
        "version": None,
        "file": file,
        "problem": None,
        "root": root,
    }
    if file and not os.path.isfile(file):
        out["problem"] = f"kernel.source: {file}: no such file"
    elif file:
        out["hash"] = source.file_hash(file, cache)
        if spec_source.get("sha256") not in (None, out["hash"]):
            out["problem"] = f"kernel.source: {file}: sha256 {out['hash']} is not the one wanted"
    return out


def fetch(spec_source: dict[str, Any], cache: str) -> None:
    """Install or unpack the package of a ready kernel. BuildError if that fails."""
    name = spec_source.get("package")
    file, root = _binary(spec_source, cache)
    if name is None or file:
        return
    if not root:
        say(f"install {name}")
        apt.install([name])
    else:
        folder = os.path.dirname(root)
        os.makedirs(folder, exist_ok=True)
        deb = apt.download(name, spec_source["suite"], folder)
        with new_folder(root) as beside:
            subprocess.run(["dpkg-deb", "-x", deb, beside], check=True)
        os.unlink(deb)
    if not _binary(spec_source, cache)[0]:
        raise BuildError(f"{name}: holds no /usr/bin/linux.uml: no User Mode Linux kernel")


def describe(identity: source.Identity) -> dict[str, Any]:
    """release, configuration, transports and modules of a ready kernel, asked of itself."""
    path = identity["file"]
    release = _ask([path, "--version"])
    text = _ask([path, "--showconfig"])
    found = sorted(glob.glob(f"{identity['root']}/usr/lib/uml/modules/{release}"))
    return {
        "release": release,
        "config": f"{text}\n",
        "transports": kconfig.transports(kconfig.parse(text)),
        "modules": found[0] if found else None,
    }


def runs(path: str) -> None:
    """BuildError, with the remedy, where a UML kernel that was just built does not run here."""
    with open(path, "rb") as file:
        head = file.read(5)
    try:
        _ask([path, "--version"])
    except BuildError as error:
        remedy = ""
        if head == b"\x7fELF\x01":
            remedy = (
                "; a 32-bit kernel needs a 32-bit C library here, or none at all: "
                'options = {"STATIC_LINK": "y"}'
            )
        raise BuildError(f"the kernel was built, but {error}{remedy}") from None


def _ask(command: list[str]) -> str:
    """What a kernel says of itself, in the sandbox: whose it is, and what it does, is not known."""
    try:
        done = sandbox.run_program(*command, seconds=20)
    except sandbox.NoSandbox as error:
        raise BuildError(f"{command[0]}: {error}") from None
    except OSError as error:
        if str(error).endswith(os.strerror(errno.ENOENT)):
            raise BuildError(f"{command[0]}: its loader is not on this machine") from None
        raise BuildError(f"{command[0]}: cannot be run: {word(str(error))}") from None
    if done.fault:
        raise BuildError(f"{' '.join(command)}: {done.fault}: no UML kernel?")
    text = done.output.strip()
    if done.code or not text:
        said = word((done.errors.strip() or "no answer").splitlines()[-1])
        raise BuildError(f"{' '.join(command)}: {said}: no UML kernel that runs here")
    return text
