"""A kernel's modules and System.map, staged beside its image: ``make modules_install``.

Procedure: "sudo make modules_install && sudo make install" of the host kernel, but into the
kernel's own folder, so that another machine than the builder can install them.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from umlaan.agent import dvstar, index
from umlaan.agent.chamber import OUT, say

if TYPE_CHECKING:
    from umlaan.agent.kernel_make import Make

PACKED = "modules.tar.gz"
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
    """Put System.map and the packed modules beside the image and name them in made["extra"]."""
    made["extra"] = ["System.map"]
    shutil.copyfile(f"{out}/System.map", f"{beside}/System.map")
    if made["options"].get("MODULES") != "y":
        return
    stage = f"{out}/.umlaan-modules"
    shutil.rmtree(stage, ignore_errors=True)
    make.run(f"INSTALL_MOD_PATH={OUT}/.umlaan-modules", "INSTALL_MOD_STRIP=1", "modules_install")
    pack(f"{stage}/lib/modules/{made['release']}", spec["cache"], made, beside)
    shutil.rmtree(stage)


def pack(folder: str, cache: str, made: dict[str, Any], beside: str) -> None:
    """Pack a folder of modules as RELEASE/…, to be unpacked in /lib/modules; made names it."""
    say(f"pack the modules of {made['release']}")
    rows = index.manifest(folder, frozenset(), cache)
    for name in _LINKS:
        if os.path.islink(f"{folder}/{name}"):
            rows.pop(name, None)
    dvstar.write_tarball(folder, rows, f"{beside}/{PACKED}", made["release"])
    made["modules"] = PACKED
    made["extra"] = [*made.get("extra", []), PACKED]
