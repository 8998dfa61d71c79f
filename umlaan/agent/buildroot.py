"""``buildroot SPEC-FILE`` and ``buildroot --state DIR``: Debian roots that only compilers use.

Made by mmdebstrap beside and renamed; the stamp, DIR.json, is written last and holds compiler, C
library and an id over every package's version. A build root is used only inside a chamber.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any

from umlaan.agent import apt
from umlaan.agent.atomic import new_folder, sweep_all
from umlaan.agent.chamber import BuildError, Chamber, say
from umlaan.agent.files import locked, make_folder, read_json, write_json
from umlaan.agent.spec import load


def stamp_of(folder: str) -> dict[str, Any] | None:
    """The stamp of a whole build root; None where there is none."""
    stamp = read_json(f"{folder}.json")
    return stamp if isinstance(stamp, dict) and os.path.isdir(folder) else None


def make(spec: dict[str, Any]) -> None:
    """Make a build root. BuildError names suite and mirror, or quotes mmdebstrap."""
    folder, archive = spec["dir"], spec["mirror"] or apt.mirror()
    apt.check_suite(archive, spec["suite"])
    # An old suite's setuid programs are no other user's to run.
    make_folder(os.path.dirname(folder), 0o700)
    with new_folder(folder) as beside:
        stamp = _unpacked(spec, archive, beside)
        # A root without its stamp is none: what stands there goes first.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}.json")
    write_json(f"{folder}.json", stamp)
    say(f"build root {spec['label']}: {stamp['compiler']}, glibc {stamp['glibc']}")


def _unpacked(spec: dict[str, Any], archive: str, beside: str) -> dict[str, Any]:
    """The root made in a folder; its stamp."""
    say(f"mmdebstrap {spec['suite']}/{spec['arch']} from {archive}")
    command = ["mmdebstrap", "--variant=minbase", f"--architectures={spec['arch']}"]
    # A root made as root may keep what belongs to other users; an i386 one runs on amd64 as it is.
    command += ["--mode=root", "--skip=check/qemu", "--aptopt=Acquire::Languages none"]
    command += [
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
    ]
    command += [
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        f"--include={','.join(spec['packages'])}",
    ]
    command += [spec["suite"], beside, f"deb {archive} {spec['suite']} main"]
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        raise BuildError(f"mmdebstrap {spec['suite']}/{spec['arch']} from {archive} failed")
    for left in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(f"{beside}/{left}", ignore_errors=True)
    return describe(spec, beside)


def describe(spec: dict[str, Any], folder: str) -> dict[str, Any]:
    """Compiler, C library and id of what stands in a root."""
    chamber = Chamber(os.path.dirname(os.path.dirname(folder)), root=folder)
    versions = chamber.ask(["dpkg-query", "-W", "-f=${Package} ${Version}\n"])
    library = chamber.ask(["getconf", "GNU_LIBC_VERSION"]).rpartition(" ")[2]
    compiler = chamber.ask(["gcc", "--version"]).partition("\n")[0]
    named = f"{spec['suite']} {spec['arch']}\n{versions}"
    return {
        "id": hashlib.sha256(named.encode()).hexdigest(),
        "label": spec["label"],
        "compiler": compiler,
        "glibc": library,
        "packages": len(versions.splitlines()),
    }


def main(argv: list[str]) -> int:
    """The ``buildroot`` verb: --state prints the stamp, null while there is none; else make it."""
    if argv[0] == "--state":
        print(json.dumps(stamp_of(argv[1])))
        return 0
    spec = load(argv[0])
    cache = os.path.dirname(os.path.dirname(spec["dir"]))
    try:
        with locked(f"{cache}/lock/buildroot", f"build root {spec['label']}", wait=3600):
            sweep_all(os.path.dirname(spec["dir"]))
            if stamp_of(spec["dir"]) is None:
                make(spec)
    except (BuildError, TimeoutError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
