"""The host kernel's operations: what is installed, what is tried, and nothing where all stands."""

from __future__ import annotations

import json
from typing import Any

from pyinfra.api.state import StateStage

from tests.operations.support import commands_of
from umlaan.model.hostkernel import HostBoot
from umlaan.model.kernel import Kernel
from umlaan.operations import hostkernel, reboot

KERNEL = Kernel(arch="x86_64", fragments=())
WISH = HostBoot()
OLD, NEW = "6.1.0-56-amd64", "6.1.192-umlaan-0123abcd"


def state(**changes: Any) -> dict[Any, Any]:
    """The answer of a machine on which the new kernel runs and is confirmed."""
    row = {
        "kernel": {"release": NEW, "key": "k"},
        "entry": "umlaan-new",
        "fault": None,
        "grub": None,
        "problems": [],
        "running": {"release": NEW, "boot_id": "b1", "entry": "umlaan-new"},
        "saved": "umlaan-new",
        "next": "",
        "trial": None,
        "fallback": "umlaan-new",
        "saved_is_there": True,
        "next_release": NEW,
    }
    return {"host-kernel state": json.dumps({**row, **changes})}


OLD_RUNS = {"running": {"release": OLD, "boot_id": "b1", "entry": ""}, "saved": "gnulinux-old"}


def installed(responses: dict[Any, Any], **kwargs: Any) -> list[str]:
    return commands_of(hostkernel.installed, KERNEL, WISH, responses=responses, **kwargs)


def into(responses: dict[Any, Any], policy: str, **kwargs: Any) -> list[str]:
    return commands_of(reboot.into, KERNEL, WISH, policy, responses=responses, **kwargs)


def test_nothing_where_all_stands() -> None:
    reasons: list[tuple[str, str]] = []
    assert installed(state(), reasons=reasons) == []
    assert into(state(), "when_needed", reasons=reasons) == []
    assert reasons == []


def test_install_writes_the_spec_and_runs_the_agent() -> None:
    reasons: list[tuple[str, str]] = []
    found = installed(state(problems=[f"install {NEW}, not there yet"]), reasons=reasons)
    assert len(found) == 2
    assert found[0].startswith("umlaan-agent spec /var/lib/umlaan/umlaan/host-kernel/spec.json ")
    assert "umlaan-agent host-kernel install" in found[1]
    assert reasons[0][1] == f"host kernel: install {NEW}, not there yet"


def test_without_grub_the_host_fails_with_the_reason() -> None:
    assert installed(state(grub="no grub-reboot: no grub")) == [
        "host kernel: no grub-reboot: no grub"
    ]


def test_never_arms_the_next_boot_once() -> None:
    reasons: list[tuple[str, str]] = []
    found = into(state(**OLD_RUNS), "never", reasons=reasons)
    assert len(found) == 1 and found[0].startswith("umlaan-agent boot arm ")
    assert f"running {OLD}, wanted {NEW}: reboot needed" in reasons[0][1]
    assert into(state(**OLD_RUNS, next="umlaan-new"), "never") == []


def test_when_needed_arms_reboots_and_judges() -> None:
    found = into(state(**OLD_RUNS), "when_needed")
    assert found[0].startswith("umlaan-agent boot arm ")
    # The reboot and the judgement after it are functions of this process.
    assert len(found) >= 3


def test_a_failed_trial_is_not_repeated() -> None:
    trial = {
        "entry": "umlaan-new",
        "release": NEW,
        "state": "failed",
        "why": f"came back with {OLD}",
        "boot_id": "b0",
    }
    assert into(state(**OLD_RUNS, trial=trial), "when_needed") == []


def test_a_plan_of_a_kernel_that_is_not_built_says_so() -> None:
    missing = state(kernel=None, entry="", **OLD_RUNS)
    reasons: list[tuple[str, str]] = []
    found = installed(missing, stage=StateStage.Prepare, reasons=reasons)
    assert len(found) == 2
    assert reasons[0][1] == "host kernel: install, not built yet"
    assert installed(missing) == ["host kernel: not built"]


def removed(**changes: Any) -> tuple[list[str], list[str]]:
    row = {"releases": [NEW], "files": ["/etc/grub.d/42_umlaan"], "running": None, "state": True}
    reasons: list[tuple[str, str]] = []
    answer = {"boot-away left": json.dumps({**row, **changes})}
    return commands_of(hostkernel.removed, responses=answer, reasons=reasons), [
        text for _, text in reasons
    ]


def test_destroy_takes_the_host_kernel_away_unless_it_runs() -> None:
    commands, reasons = removed()
    assert len(commands) == 1 and commands[0].startswith("umlaan-agent boot-away do ")
    assert reasons == [f"host kernel: remove {NEW}, and its entries in grub's menu"]
    assert removed(running=NEW) == ([], [])
    assert removed(releases=[], files=[], state=False) == ([], [])
