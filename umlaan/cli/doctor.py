"""``umlaan doctor``: what the machines lack for this lab, each lack with its remedy."""

from __future__ import annotations

import shutil
from functools import partial
from importlib.util import find_spec

import typer

from umlaan.cli.options import DataOption, InventoryOption, JsonOption, chosen
from umlaan.cli.session import Session, open_session
from umlaan.cli.show import as_json, hint, output, plain
from umlaan.facts.network import found_network
from umlaan.facts.preflight import examine
from umlaan.facts.toolchain import MissingPackages
from umlaan.model.outputs import DoctorLine, DoctorOutput
from umlaan.plan import doctor as plan
from umlaan.plan.network_state import wanted_of
from umlaan.plan.toolchain import packages


def command(
    ctx: typer.Context,
    inventory: InventoryOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Look whether the machines have what this lab needs; nothing is changed.

    Exit code 0 ready, 1 something is lacking.

    Example: [bold]umlaan doctor[/]
    """
    found = examined(open_session(chosen(ctx, inventory, data)))
    if json:
        print(as_json(found))
    else:
        show(found)
    return 0 if found.verdict == "ready" else 1


def examined(session: Session) -> DoctorOutput:
    """All lab hosts, and the machine that umlaan runs on."""
    lab = session.lab
    lines: list[DoctorLine] = []
    machines = {}
    for host in lab.hosts:
        probed, report = session.reading(host.name, partial(examine, lab=lab, host=host))
        machines[host.name] = plan.machine(probed)
        wanted = wanted_of(host, lab.nodes_on(host.name), lab.peers())
        network = session.reading(host.name, partial(found_network, wanted=wanted))
        missing = session.ask(host.name, MissingPackages, packages(lab, host.name))
        lines += plan.lines(lab, host, report, network, missing)
    commands = {name: shutil.which(name) is not None for name in ("ssh", "dot")}
    lines += plan.here(commands, {"plotly": find_spec("plotly") is not None})
    lacking = any(line.kind == "lack" for line in lines)
    return DoctorOutput(
        lab=lab.name,
        verdict="lacking" if lacking else "ready",
        machines=machines,
        lines=tuple(lines),
    )


def show(found: DoctorOutput) -> None:
    """For a person."""
    for name, rows in found.machines.items():
        output().print(f"[bold]{plain(name)}[/]")
        width = max(len(what) for what in rows)
        for what, said in rows.items():
            output().print(f"  {what:<{width}}  {said}", markup=False)
    for line in found.lines:
        colour = "red" if line.kind == "lack" else "yellow"
        output().print(f"[{colour}]{line.kind}[/]  {plain(line.host)}: ", end="")
        output().print(line.text, markup=False)
    if found.verdict == "ready":
        output().print(f"lab {found.lab}: the machines have what it needs")
        hint("next: umlaan plan shows what would be done, umlaan up does it")
    else:
        hint("next: mend each lack as it says, then umlaan doctor again")
