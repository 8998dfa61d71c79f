"""operations.module: built, placed, loaded, taken away; nothing where all stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyinfra.api.state import State, StateStage

from tests.operations.support import NODE, commands_of
from umlaan.model.hostkernel import HostModule
from umlaan.model.kernel import Kernel
from umlaan.operations import dvsup, module

KERNEL = Kernel(arch="x86_64", fragments=())
OLD, NEW = "6.1.0-56-amd64", "6.1.192-umlaan-0123abcd"
LOADED = HostModule(name="dvk", source="kernel:ipc/dvk-mod", load=True, tests=("modinfo {ko}",))
PLACE = "umlaan-agent module place "


def answers(**changes: Any) -> dict[Any, Any]:
    """A machine on which the module of this content is built, placed and loaded."""
    stamp = {"key": "k", "release": NEW, "inputs": {"release": NEW}}
    build = {"inputs": {"release": NEW}, "key": "k", "previous": stamp, "cached": True}
    there = {"stamp": stamp, "here": "k", "problems": [], "load": [], "running": NEW}
    there |= {"stuck": False, "loaded": True}
    return {
        "module build-state": json.dumps({**build, "problem": None}),
        "module state": json.dumps({**there, **changes}),
    }


def built(wanted: HostModule = LOADED, **changes: Any) -> tuple[list[str], list[str]]:
    reasons: list[tuple[str, str]] = []
    found = commands_of(module.built, wanted, KERNEL, responses=answers(**changes), reasons=reasons)
    return found, [text for _, text in reasons]


def test_nothing_where_it_stands() -> None:
    assert built() == ([], [])


def test_a_damaged_place_is_placed_again() -> None:
    commands, reasons = built(problems=["/x/dvk.ko is missing"])
    assert len(commands) == 1 and PLACE in commands[0]
    assert reasons == ["module dvk: place it again, /x/dvk.ko is missing"]


def test_one_loaded_otherwise_is_loaded_anew() -> None:
    commands, reasons = built(load=["load it again, dbglvl 0 → 1"])
    assert len(commands) == 1 and commands[0].startswith("umlaan-agent module load ")
    assert reasons == ["module dvk: load it again, dbglvl 0 → 1"]


def test_one_that_only_a_reboot_takes_out_is_rebooted_for_where_that_may_be() -> None:
    differs = {"load": ["load it again, another build is loaded"], "stuck": True}
    # The agent then says that it cannot be unloaded, and what is to be done.
    commands, _ = built(**differs)
    assert [text.split()[2] for text in commands] == ["load"]
    reasons: list[tuple[str, str]] = []
    more: dict[str, Any] = {"responses": answers(**differs), "reasons": reasons}
    more["data"] = {"reboot": "when_needed", "host_kernel": {"arch": "x86_64"}}
    # A node that failed would be stopped and not be started again.
    (load,) = commands_of(module.built, LOADED, KERNEL, failed=[NODE], **more)
    reasons.clear()
    seen = dvsup.Seen()

    def planned(state: State) -> None:
        # What the plan saw of the DVS before its machine was rebooted.
        state.umlaan_dvs_views = seen  # type: ignore[attr-defined]
        seen.keep({"node0": {"answers": True}, "node1": {"answers": True}})

    arm, stop, reboot, load = commands_of(module.built, LOADED, KERNEL, before=planned, **more)
    assert seen == {}
    assert arm.startswith("umlaan-agent module arm ") and '"forget": true' in stop
    assert "_again" in reboot and load.startswith("umlaan-agent module load ")
    assert reasons[1][1] == ("module dvk: reboot, only that takes the loaded one out of the kernel")


def test_a_plan_says_that_a_new_build_of_one_that_stays_loaded_takes_a_reboot() -> None:
    stays = LOADED.model_copy(update={"unload": False})
    stamp = {"key": "before", "release": NEW, "inputs": {"release": NEW}}
    said = "module dvk: reboot, only that takes the loaded one out of the kernel"
    data = {"reboot": "when_needed", "host_kernel": {"arch": "x86_64"}}
    for wanted, loaded, allowed in (
        (stays, True, data),
        (stays, False, data),
        (LOADED, True, data),
        (stays, True, {**data, "reboot": "never"}),
    ):
        reasons: list[tuple[str, str]] = []
        (place,) = commands_of(
            module.built,
            wanted,
            KERNEL,
            responses=answers(stamp=stamp, loaded=loaded),
            data=allowed,
            reasons=reasons,
            stage=StateStage.Prepare,
        )
        assert PLACE in place
        there = said in [text for _, text in reasons]
        assert there == (wanted is stays and loaded and allowed is data)


def test_a_first_one_is_placed_and_then_loaded() -> None:
    # What is loaded is asked once more after placing.
    commands, reasons = built(stamp=None, load=["load it, it is not loaded"])
    assert [PLACE in commands[0], "module load" in commands[1]] == [True, True]
    assert reasons == [
        "module dvk: test and place it, none there yet",
        "module dvk: load it, it is not loaded",
    ]


@pytest.mark.parametrize(
    ("tests", "said"),
    [(("true",), "its tests wait for a reboot"), ((), "it is loaded after a reboot")],
)
def test_while_another_kernel_runs_tests_and_loading_wait(
    tests: tuple[str, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = LOADED.model_copy(update={"tests": tests})
    commands, _ = built(wanted, stamp=None, running=OLD)
    assert f"module dvk: running {OLD}, wanted {NEW}: {said}" in caplog.text
    assert [PLACE in text for text in commands] == ([] if tests else [True])


def test_a_plan_says_the_same(caplog: pytest.LogCaptureFixture) -> None:
    reasons: list[tuple[str, str]] = []
    said = answers(load=["load it, it is not loaded"])
    found = commands_of(
        module.built, LOADED, KERNEL, responses=said, reasons=reasons, stage=StateStage.Prepare
    )
    assert len(found) == 1 and reasons[0][1] == "module dvk: load it, it is not loaded"


def removed(*left: str) -> tuple[list[str], list[str]]:
    reasons: list[tuple[str, str]] = []
    answer = {"module left": json.dumps(left)}
    found = commands_of(module.removed, responses=answer, reasons=reasons)
    return found, [text for _, text in reasons]


def test_destroy_takes_what_modules_left_and_nothing_the_second_time() -> None:
    commands, reasons = removed("/lib/modules/x/extra/dvk.ko")
    assert len(commands) == 1 and commands[0].startswith("umlaan-agent module away ")
    assert reasons == ["host modules: remove /lib/modules/x/extra/dvk.ko"]
    assert removed() == ([], [])
