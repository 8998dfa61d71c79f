"""A kernel's modules and System.map, staged beside its image: ``make modules_install``.

Procedure: "sudo make modules_install && sudo make install" of the host kernel, but into the
kernel's own folder, so that another machine than the builder can install them, or a guest.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

from umlaan.agent import beneath, dvstar, index
from umlaan.agent.chamber import OUT, say

if TYPE_CHECKING:
    from umlaan.agent.kernel_make import Make

PACKED = "modules.tar.gz"
# In a guest's /lib/modules/RELEASE, first line: the content that umlaan put there.
STAMP = ".umlaan"
# A module's file, compressed or not; the indexes beside them are depmod's to write again.
MODULE = r"\.ko(\.[a-z0-9]+)?$"
# Links into the build's own folders, which are not there where the modules are installed.
_LINKS = ("build", "source")


def own_release(spec: dict[str, Any], key: str) -> list[str]:
    """make's word that gives each content of a host kernel a release of its own.

    So no kernel ever takes the place of the one that runs, and there is always one to go back to.
    A LOCALVERSION of the user's stands.
    """
    if spec["arch"] == "um" or "LOCALVERSION" in spec["make"]:
        return []
    return [f"LOCALVERSION=-{key[:8]}"]


def staged(spec: dict[str, Any], make: Make, out: str, made: dict[str, Any], beside: str) -> None:
    """Put a host kernel's System.map and the packed modules beside the image; made names them."""
    made["extra"] = []
    if spec["arch"] != "um":
        made["extra"].append("System.map")
        beneath.copy(out, "System.map", f"{beside}/System.map")
    if made["options"].get("MODULES") != "y":
        return
    stage = f"{out}/.umlaan-modules"
    shutil.rmtree(stage, ignore_errors=True)
    make.run(f"INSTALL_MOD_PATH={OUT}/.umlaan-modules", "INSTALL_MOD_STRIP=1", "modules_install")
    folder = f"{stage}/lib/modules/{made['release']}"
    pack(folder, spec["cache"], made, beside, stamped=spec["arch"] == "um")
    shutil.rmtree(stage)


def pack(
    folder: str, cache: str, made: dict[str, Any], beside: str, *, stamped: bool = True
) -> None:
    """Pack a folder of modules as RELEASE/…, to be unpacked in /lib/modules; made names it.

    stamped: the parcel carries its content's hash, so that both take their place in one rename.
    made["packed"] is what a guest that has it is compared with: content, sizes, bytes, entries.
    """
    say(f"pack the modules of {made['release']}")
    rows = index.manifest(folder, frozenset(), cache)
    for name in _LINKS:
        if os.path.islink(f"{folder}/{name}"):
            rows.pop(name, None)
    content = index.manifest_hash(rows)
    sizes = {n: os.path.getsize(f"{folder}/{n}") for n, row in rows.items() if row[0] == "file"}
    more = {STAMP: f"{content}\n".encode()} if stamped else {}
    # They are unpacked on this machine or through ssh in the guest, not kept for ever.
    dvstar.write_tarball(folder, rows, f"{beside}/{PACKED}", made["release"], more=more, level=1)
    made["modules"] = PACKED
    made["extra"] = [*made.get("extra", []), PACKED]
    made["packed"] = {
        "content": content,
        "sizes": sizes_digest(sizes),
        "bytes": sum(sizes.values()),
        "entries": len(rows) + len(more),
    }


def sizes_digest(sizes: dict[str, int]) -> str:
    """One hash over the modules' names and sizes, as ``plan.guestmodules`` has a root say it."""
    rows = sorted((f"./{n}".encode(), size) for n, size in sizes.items() if re.search(MODULE, n))
    return hashlib.sha256(b"".join(b"%d %s\n" % (size, name) for name, size in rows)).hexdigest()
