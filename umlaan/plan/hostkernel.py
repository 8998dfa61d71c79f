"""The host kernel: what the agent is to install, and what the next boot is to be."""

from __future__ import annotations

import shlex
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
            SCRIPT: render("grub/42_umlaan.j2", lab=where.lab, list=shlex.quote(entries)),
        },
    }


def leaving(where: LabHost) -> dict[str, Any]:
    """The agent's description of what a destroyed lab leaves of host kernels."""
    return {"state_dir": where.state_dir, "files": [SCRIPT, DEFAULTS]}


def stays(found: dict[str, Any]) -> str | None:
    """Why the host kernel is left where it is, and what its user does; None where it can go."""
    if not found["running"]:
        return None
    return (
        f"host kernel {found['running']} stays, with its entry in grub's menu: it runs. Boot "
        "another kernel (grub-reboot its entry), then destroy once more"
    )


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
        return Decision("failed", failure(found))
    if state == "armed" and trial["boot_id"] != now["boot_id"] and found["next"] != entry:
        return Decision("settle", f"host kernel: {_both(found, 'was tried', 'runs')}")
    pending = f"host kernel: {_pending(found)}: reboot needed"
    if reboot == "when_needed" and not here:
        return Decision("trial", f"{pending}; try it once, now")
    if found["next"] == entry:
        return Decision("wait", f"{pending} (the next boot tries it once)")
    return Decision("arm", f"{pending}; let the next boot try it once")


def _pending(found: dict[str, Any]) -> str:
    now, release, entry = found["running"], found["kernel"]["release"], found["entry"]
    if now["release"] != release:
        return f"running {now['release']}, wanted {release}"
    # The same kernel with other parameters is another entry: releases alone would say nothing.
    return f"running {release} by {_by(now['entry'])}, wanted by entry {entry} (parameters changed)"


def _both(found: dict[str, Any], tried: str, runs: str) -> str:
    now, release, entry = found["running"], found["kernel"]["release"], found["entry"]
    if now["release"] != release:
        return f"{release} {tried}, {now['release']} {runs}"
    return f"{release} {tried} by entry {entry}, it {runs} by {_by(now['entry'])}"


def _by(entry: str) -> str:
    return f"entry {entry}" if entry else "an entry that is not umlaan's"


def next_boot(found: dict[str, Any]) -> str:
    """What the machine's next boot takes, in words."""
    entry = found["next"] or found["saved"]
    if not entry:
        return "grub's first entry"
    release = found["next_release"]
    return f"{release} (entry {entry})" if release else f"entry {entry}"


def failure(found: dict[str, Any]) -> str:
    """The message of a trial that did not succeed: what runs now, and what the next boot takes."""
    trial, now, path = found["trial"], found["running"], "host-kernel/trial.json"
    if trial["state"] == "refused":
        what = "did not pass its checks"
    else:
        what = "did not come up when tried"
    still = "still running it" if now["entry"] == trial["entry"] else f"running {now['release']}"
    return (
        f"host kernel: {trial['release']} {what}: {trial['why']}; {still}, the next boot takes "
        f"{next_boot(found)}. It is tried again when the kernel or its parameters change, or once "
        f"{path} in the state folder is removed"
    )
