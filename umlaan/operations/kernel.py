"""A kernel on a lab host, built from source or taken ready, in the lab's kernels folder.

Procedure: "Se compila el kernel UML", cp UMLaaN-guest.config .config, make ARCH=um.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from pyinfra import logger
from pyinfra.api.command import QuoteString
from pyinfra.api.operation import operation
from pyinfra.context import host as context_host

from umlaan.agent.spec import encode
from umlaan.facts.base import PACKAGE, agent
from umlaan.facts.kernel import KernelState
from umlaan.model.kernel import Kernel
from umlaan.operations.common import (
    agent_command,
    agent_fact,
    carrier,
    executing,
    fail,
    lab_host,
    long_command,
    why,
)
from umlaan.plan import kconfig
from umlaan.plan import kernel as plan

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand

BASES = ("allnoconfig", "defconfig", "tinyconfig")


def read_here(name: str) -> str | None:
    """Text of a file of the machine that runs pyinfra, as named or in the project; None if none."""
    for folder in (Path.cwd(), PACKAGE.parent):
        path = folder / name
        if path.is_file():
            return path.read_text(errors="replace")
    return None


def wanted(kernel: Kernel) -> tuple[dict[str, str], list[kconfig.Conflict], str | None]:
    """Options, conflicts between fragments, text of the base. ValueError names file and line."""
    texts = []
    for name in () if kernel.source.ready else kernel.fragments:
        text = read_here(name)
        if text is None:
            raise ValueError(f"kernel.fragments: {name}: no such file here or in {PACKAGE.parent}")
        texts.append((name, text))
    options, conflicts = kconfig.merge(texts, kernel.options)
    base = None if kernel.base in BASES else read_here(kernel.base)
    if base is None and kernel.base not in BASES and not kernel.base.startswith("/"):
        raise ValueError(f"kernel.base: {kernel.base}: no such file here or in {PACKAGE.parent}")
    return options, conflicts, base


@operation()
def built(kernel: Kernel) -> Generator[PyinfraCommand, None, None]:
    """The kernel's folder on the lab host holds linux, config and stamp.json as its data says.

    + kernel: source, layers, configuration and toolchain as data

    Fails, naming file and line, where a fragment cannot be read; naming option, patch, hunk or
    make target, and the log, where the build fails.
    """
    try:
        options, conflicts, base = wanted(kernel)
    except ValueError as error:
        yield from fail(str(error))
        return
    where = lab_host()
    spec = plan.spec(kernel, options, where.state_dir, where.cache_dir, base)
    word = encode(spec)
    found = agent_fact(KernelState, word)
    if found is None:
        yield from fail("UML kernel: its state could not be read; the message stands above")
        return
    if found["faults"]:
        if executing():
            yield from fail("\n".join(found["faults"]))
            return
        why("\n".join(found["faults"]))
    rows = plan.reasons(found)
    if not rows and not found["faults"]:
        return
    for row in rows:
        why(row)
    for conflict in conflicts:
        logger.info(f"{context_host.print_prefix}{conflict}")
    path = f"{spec['dir']}/spec.json"
    yield agent_command("spec", QuoteString(path), word)
    yield long_command(
        "UML kernel",
        f"{agent(carrier())} kernel-build {path}",
        f"kernel-{kernel.id}.log",
        progress="kbuild",
    )
