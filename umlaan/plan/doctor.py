"""What ``umlaan doctor`` says of a machine: what it is, what it lacks, what is good to know."""

from __future__ import annotations

from typing import Any

from umlaan.model.host import LabHost
from umlaan.model.lab import Lab
from umlaan.model.outputs import DoctorLine
from umlaan.plan.network_refusals import refusals, tap_refusals
from umlaan.plan.network_state import Found, wanted_of
from umlaan.plan.preflight import Report, human


def machine(found: dict[str, Any]) -> dict[str, str]:
    """What a lab host is, in a person's words, from preflight's probe."""
    if found.get("python") is None:
        return {"python3": "there is none"}
    rows = {
        "system": f"{found['os_name']}, {found['machine']}",
        "kernel": f"{found['kernel']}{', systemd' if found['systemd'] else ', no systemd'}",
        "cpus": str(found["cpus"]),
        "memory": f"{human(found['memory']['MemAvailable'])} of "
        f"{human(found['memory']['MemTotal'])} free",
    }
    for disk in found["disks"]:
        rows[f"space for {disk['path']}"] = f"{human(disk['free'])} free on {disk['mount']}"
    for folder in found["memory_folders"]:
        if folder["there"]:
            rows[f"guests' memory in {folder['path']}"] = f"{human(folder['free'])} free"
    rows["/dev/net/tun"] = found["tun"] or "opens"
    kinds = ", ".join(found["namespaces"])
    rows[f"namespaces ({kinds})"] = found["unshare"] or "can be made"
    return rows


def lines(
    lab: Lab, host: LabHost, report: Report, network: Found, missing: list[str]
) -> list[DoctorLine]:
    """Preflight's lacks and notes, the network's refusals, the packages that a run will install."""
    nodes = lab.nodes_on(host.name)
    wanted = wanted_of(host, nodes, lab.peers())
    lacks = [*report.lacks, *refusals(wanted, network)]
    for tap in wanted.taps:
        lacks += tap_refusals(wanted, tap, network)
    notes = list(report.notes)
    if missing:
        notes.append(f"packages: umlaan up will install {', '.join(missing)}")
    rows = [DoctorLine(host=host.name, kind="lack", text=text) for text in dict.fromkeys(lacks)]
    return rows + [DoctorLine(host=host.name, kind="note", text=text) for text in notes]


def here(commands: dict[str, bool], modules: dict[str, bool]) -> list[DoctorLine]:
    """What the machine that runs umlaan itself lacks, beside what pip brought."""
    remedies = {
        "ssh": "umlaan ssh and lab hosts over ssh need it: apt-get install openssh-client",
        "dot": "umlaan graph draws svg and png with Graphviz: "
        "apt-get install --no-install-recommends graphviz; -o lab.mmd needs nothing",
        "plotly": "umlaan report draws its page with it: pip install -e '.[report]'",
    }
    absent = [name for name, there in {**commands, **modules}.items() if not there]
    return [
        DoctorLine(host="here", kind="note", text=f"{name}: {remedies[name]}") for name in absent
    ]
