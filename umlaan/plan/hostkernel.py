"""The host kernel: what the agent is to install, and what the next boot is to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from umlaan.model.host import LabHost
from umlaan.model.hostkernel import HostBoot
from umlaan.model.kernel import Kernel
from umlaan.plan.templates import render

Action = Literal["none", "arm", "trial", "settle", "wait", "failed"]
DEFAULTS = "/etc/default/grub.d/umlaan.cfg"
SCRIPT = "/etc/grub.d/42_umlaan"


@dataclass(frozen=True)
class Decision:
    """What is to be done for the next boot, and why. wait and failed change nothing."""

    action: Action
    text: str = ""


def spec(kernel: Kernel, wish: HostBoot, where: LabHost) -> dict[str, Any]:
    """The agent's description of how a built kernel is installed and booted on a lab host."""
    entries = f"{where.state_dir}/host-kernel/entries"
    return {
        "dir": f"{where.state_dir}/kernels/{kernel.id}",
        "state_dir": where.state_dir,
        "cache": where.cache_dir,
        "parameters": list(wish.parameters),
        "initramfs": wish.initramfs,
        "panic": wish.panic,
        "checks": list(wish.checks),
        "files": {
            DEFAULTS: render("grub/umlaan.cfg.j2", lab=where.lab),
            SCRIPT: render("grub/42_umlaan.j2", lab=where.lab, list=entries),
        },
    }


def reasons(found: dict[str, Any]) -> list[str]:
    """Why the kernel is to be installed; empty where all of it stands."""
    return [f"host kernel: {row}" for row in found["problems"]]


def decide(found: dict[str, Any], reboot: str, *, here: bool = False) -> Decision:
    """What the next boot is to be.

    here: the machine is the one that pyinfra runs on, which cannot reboot and go on.
    """
    entry, now = found["entry"], found["running"]
    release = found["kernel"]["release"]
    if now["entry"] == entry:
        if found["saved"] == entry:
            return Decision("none")
        return Decision("settle", f"host kernel: {release} runs on trial: check and confirm it")
    trial = found["trial"] or {}
    tried = trial.get("entry") == entry
    state = trial.get("state") if tried else None
    if state in ("failed", "refused"):
        return Decision("failed", failure(trial, now["release"]))
    if state == "armed" and trial["boot_id"] != now["boot_id"] and found["next"] != entry:
        return Decision("settle", f"host kernel: {release} was tried, {now['release']} runs")
    pending = f"host kernel: running {now['release']}, wanted {release}: reboot needed"
    if reboot == "when_needed" and not here:
        return Decision("trial", f"{pending}; try it once, now")
    if found["next"] == entry:
        return Decision("wait", f"{pending} (the next boot tries it once)")
    return Decision("arm", f"{pending}; let the next boot try it once")


def failure(trial: dict[str, Any], running: str) -> str:
    """The message of a trial that did not succeed."""
    release, path = trial["release"], "host-kernel/trial.json"
    what = (
        "did not pass its checks" if trial["state"] == "refused" else "did not come up when tried"
    )
    return (
        f"host kernel: {release} {what}: {trial['why']}; running {running}, which the next boot "
        f"takes too. It is tried again when the kernel or its parameters change, or once {path} in "
        "the state folder is removed"
    )
