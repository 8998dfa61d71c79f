"""A kernel on a lab host, built from source or taken ready, in the lab's kernels folder.

Procedure: "Se compila el kernel UML", cp UMLaaN-guest.config .config, make ARCH=um.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import logger
from pyinfra.api.command import QuoteString
from pyinfra.context import host as context_host

from umlaan.agent.spec import encode
from umlaan.facts.base import PACKAGE, agent
from umlaan.facts.kernel import Brought, KernelState
from umlaan.model.hostkernel import Builder
from umlaan.model.kernel import Kernel
from umlaan.operations.builder import (
    Bring,
    BuildCommand,
    build_command,
    builder,
    builder_fact,
    builder_host,
    unreachable,
)
from umlaan.operations.common import (
    agent_command,
    agent_fact,
    carrier,
    executing,
    fail,
    lab,
    lab_host,
    long_command,
    why,
)
from umlaan.operations.operation import operation
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


def wanted(kernel: Kernel, *, elsewhere: bool = False) -> tuple[kconfig.Merged, str | None]:
    """Options merged, and the text of the base. ValueError names file and line."""
    texts = []
    for name in () if kernel.source.ready else kernel.fragments:
        text = read_here(name)
        if text is None:
            raise ValueError(f"kernel.fragments: {name}: no such file here or in {PACKAGE.parent}")
        texts.append((name, text))
    merged = kconfig.merge(texts, kernel.options)
    merged = merged._replace(options=plan.implied(kernel, merged.options, elsewhere=elsewhere))
    base = None if kernel.base in BASES else read_here(kernel.base)
    if base is None and kernel.base not in BASES and not kernel.base.startswith("/"):
        raise ValueError(f"kernel.base: {kernel.base}: no such file here or in {PACKAGE.parent}")
    return merged, base


@operation()
def built(kernel: Kernel) -> Generator[PyinfraCommand, None, None]:
    """The kernel's folder on the lab host holds linux, config and stamp.json as its data says.

    + kernel: source, layers, configuration and toolchain as data

    Fails, naming file and line, where a fragment cannot be read; naming option, patch, hunk or
    make target, and the log, where the build fails.
    """
    which = builder()
    if fault := unreachable(which):
        yield from fail(fault)
        return
    try:
        merged, base = wanted(kernel, elsewhere=which is not None)
    except ValueError as error:
        yield from fail(str(error))
        return
    where = lab_host()
    what = "UML kernel" if kernel.arch == "um" else "host kernel"
    cache = which.cache_dir if which else where.cache_dir
    # A builder keeps the kernel in a folder of its own, from which it is brought to the lab host.
    top = f"{cache}/built" if which else where.state_dir
    spec = plan.spec(kernel, merged.options, top, cache, base, merged.ranges)
    if not which:
        spec["keep"] = plan.kernel_ids(lab(), where.name)
    word = encode(spec)
    found = builder_fact(which, KernelState, word) if which else agent_fact(KernelState, word)
    if found is None:
        yield from fail(f"{what}: its state could not be read; the message stands above")
        return
    if found["faults"]:
        if executing():
            yield from fail("\n".join(found["faults"]))
            return
        why("\n".join(found["faults"]))
    rows = plan.reasons(found, what)
    for row in rows:
        why(row)
    if rows or found["faults"]:
        for conflict in merged.conflicts:
            logger.info(f"{context_host.print_prefix}{conflict}")
        yield from _build(kernel, spec, word, what, which)
    if which:
        yield from _bring(kernel, spec, found, what, which, building=bool(rows))


def _build(
    kernel: Kernel, spec: dict[str, Any], word: str, what: str, which: Builder | None
) -> Generator[PyinfraCommand, None, None]:
    path, log = f"{spec['dir']}/spec.json", f"kernel-{kernel.id}.log"
    if which:
        on = agent(builder_host(which))
        yield BuildCommand(which, on, "spec", QuoteString(path), word)
        yield build_command(which, what, ["kernel-build", path], log, "kbuild")
        return
    yield agent_command("spec", QuoteString(path), word)
    command = f"{agent(carrier())} kernel-build {shlex.quote(path)}"
    yield long_command(what, command, log, progress="kbuild")


def _bring(
    kernel: Kernel,
    spec: dict[str, Any],
    found: dict[str, Any],
    what: str,
    which: Builder,
    *,
    building: bool,
) -> Generator[PyinfraCommand, None, None]:
    where = lab_host()
    target = f"{where.state_dir}/kernels/{kernel.id}"
    there = agent_fact(Brought, target, where.cache_dir)
    stamp = there["stamp"] if there else None
    if not building and stamp and stamp["key"] == found["key"] and there["artifact"] == "ok":
        return
    same = stamp and not building and stamp["key"] == found["key"]
    reason = there["artifact"] if same else "none there yet" if stamp is None else "it changed"
    why(f"{what}: bring from builder {which.name}, {reason}")
    yield Bring(which, what, spec["dir"], target)
