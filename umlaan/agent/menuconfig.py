"""``menuconfig SPEC-FILE FRAGMENT-FILE``: the kernel's own menu, the difference as a fragment.

Procedure: "make menuconfig". It works on a copy of the kernel's configuration in an output folder
of its own; neither the kernel that stands nor its build folder changes.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from umlaan.agent import kconfig, kernel_build
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import locked, write_atomic
from umlaan.agent.kernel_make import Make, configure, read_bytes
from umlaan.agent.spec import load


def difference(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """What to lay over the one configuration so that it becomes the other; n and absent alike."""
    return {
        name: after.get(name, "n")
        for name in sorted({*before, *after})
        if before.get(name, "n") != after.get(name, "n")
    }


def edit(spec: dict[str, Any], target: str = "menuconfig") -> dict[str, str]:
    """Run the menu on the terminal; what was changed in it. BuildError if it cannot be shown."""
    if spec["ready"]:
        raise BuildError("a ready kernel has no configuration to change")
    found = kernel_build.resolve(spec)
    kernel_build.unpack(spec)
    tree = kernel_build.prepare_tree(spec, found)
    out = f"{spec['cache']}/build/menuconfig-{spec['id']}"
    shutil.rmtree(out, ignore_errors=True)
    make = Make(spec, tree, out)
    make.chamber.environment["TERM"] = os.environ.get("TERM", "linux")
    try:
        before = configure(spec, make, tree, out)
        if make.chamber.run([*make.words, "-s", target], terminal=True):
            raise BuildError(
                f"make {target} failed; it needs libncurses-dev where the kernel is built"
            )
        after = kconfig.parse(read_bytes(f"{out}/.config").decode(errors="replace"))
        changed = difference(before, after)
        # What only follows from a choice is left to the kernel: it may follow otherwise in another.
        asked = kconfig.prompted(tree, set(changed))
        return {name: value for name, value in changed.items() if name in asked}
    finally:
        shutil.rmtree(out, ignore_errors=True)


def main(argv: list[str]) -> int:
    """The ``menuconfig`` verb; an empty fragment where nothing was changed."""
    spec = load(argv[0])
    try:
        with locked(f"{spec['cache']}/lock/kernel", "menuconfig", wait=5):
            changed = edit(spec, *argv[2:3])
    except (BuildError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    text = kconfig.render(changed) if changed else ""
    write_atomic(argv[1], text.encode())
    print(f"{len(changed)} options differ")
    return 0
