"""``umlaan menuconfig``: the kernel's own menu on a copy, the difference saved as a fragment."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from umlaan.agent.spec import encode
from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, chosen, node_names
from umlaan.cli.session import Session, open_session
from umlaan.cli.show import hint, output
from umlaan.facts.toolchain import MissingPackages
from umlaan.model.kernel import Kernel
from umlaan.operations.kernel import wanted
from umlaan.plan import kernel as plan

# What the menus themselves need where the kernel is built, beside its toolchain.
NEEDS = {"menuconfig": "libncurses-dev", "nconfig": "libncurses-dev"}


def command(
    ctx: typer.Context,
    which: Annotated[str, typer.Argument(metavar="NODE|host", autocompletion=node_names)],
    target: Annotated[
        str, typer.Option(help="The make target: menuconfig, nconfig, oldconfig, …")
    ] = "menuconfig",
    fragment: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The fragment to write. Default: kernel-NODE.config"),
    ] = None,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Edit a node's kernel (or the lab host's) in the kernel's own menu; the difference is kept.

    It works on a copy where the kernel is built: neither the kernel that runs nor its build
    changes. Naming the fragment in kernel.fragments does.

    Example: [bold]umlaan menuconfig node1[/]
    """
    if not re.fullmatch(r"[a-z0-9_]*config", target):
        raise Fault(f"--target {target}: must be a make target like menuconfig", code=64)
    path = fragment or Path(f"kernel-{which}.config")
    if path.exists():
        raise Fault(f"{path} exists already", "name another with -o, or move it away first")
    session = open_session(chosen(ctx, inventory, data))
    kernel, carrier, key = _kernel(session, which)
    text = edit(session, kernel, carrier, target)
    if not text.strip():
        output().print("nothing was changed in the menu, so there is no fragment")
        return 0
    path.write_text(f"# Chosen in {target} for {which} by umlaan menuconfig.\n{text}")
    output().print(text.rstrip(), markup=False)
    lines = [*kernel.fragments, str(path)]
    hint(f"{path}: written. It takes effect once it is named in group_data, {key}:")
    hint(f'  "fragments": {lines!r}'.replace("'", '"'))
    hint("then: umlaan plan shows what it changes, umlaan up builds it")
    return 0


def _kernel(session: Session, which: str) -> tuple[Kernel, str, str]:
    """(kernel, its lab host, the data's key)."""
    if which == "host":
        host = session.lab.hosts[0]
        kernel = session.lab.settings(host.name).host_kernel
        if kernel is None:
            raise Fault("this lab has no host kernel: host_kernel is not set in group_data")
        found = (kernel, host.name, "host_kernel")
    else:
        node = session.node(which)
        found = (node.kernel, node.host, "kernel")
    if found[0].source.ready:
        raise Fault(
            f"{which} runs a ready kernel ({found[0].source}), which has no configuration to edit",
            'name a source instead, for example kernel = "package:linux-source-6.1"',
        )
    return found


def edit(session: Session, kernel: Kernel, carrier: str, target: str) -> str:
    """Run the menu where the kernel is built; the fragment's text. Fault where it cannot be."""
    lab, host = session.lab, session.lab.host(carrier)
    builder = lab.builder(carrier)
    where, cache = (builder.name, builder.cache_dir) if builder else (carrier, host.cache_dir)
    try:
        merged, base = wanted(kernel, elsewhere=builder is not None)
    except ValueError as error:
        raise Fault(str(error)) from None
    if kernel.toolchain == "native" and target in NEEDS:
        missing = session.ask(where, MissingPackages, (NEEDS[target],))
        if missing:
            names = " ".join(missing)
            raise Fault(
                f"{where} lacks {names}, which the menu is made of",
                f"apt-get install --no-install-recommends {names}, there",
            )
    spec = plan.spec(kernel, merged.options, f"{cache}/built", cache, base, merged.ranges)
    folder = f"{cache}/menuconfig"
    files = f"{folder}/{kernel.id}.json", f"{folder}/{kernel.id}.config"
    agent = f"env {session.agent(where)}"
    words = ["menuconfig", *files, target]
    shell = f"{agent} spec {shlex.quote(files[0])} {encode(spec)} && {agent} {shlex.join(words)}"
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    done = subprocess.run(session.argv(where, shell, terminal=terminal), check=False)
    if done.returncode:
        raise Fault(f"{target} did not end well (exit code {done.returncode}); nothing was saved")
    kept = session.run(where, f"cat {shlex.quote(files[1])}", capture_output=True)
    if kept.returncode:
        raise Fault(f"{where}: {kept.stderr.strip()}")
    return kept.stdout
