"""Kernels: what stands on the lab host -> exact commands, and none where nothing differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.state import StateStage

from tests.operations.support import commands_of
from umlaan.model.kernel import Kernel
from umlaan.operations import kernel as operations

KERNEL = Kernel.model_validate({"options": {"UML_NET_TUNTAP": "y"}, "fragments": []})
INPUTS: dict[str, Any] = {
    "source": {"label": "linux-source-6.1 6.1.1-1", "hash": "a", "version": "6.1.1"},
    "options": {"UML_NET_TUNTAP": "y"},
}


def found(**change: Any) -> dict[str, str]:
    value = {
        **{"inputs": INPUTS, "key": "k", "faults": [], "artifact": "ok", "cached": None},
        **{"stamp": {"key": "k", "inputs": INPUTS}, "previous": None, **change},
    }
    return {"umlaan-agent kernel-state": json.dumps(value)}


def run(
    kernel: Kernel = KERNEL, stage: StateStage = StateStage.Execute, **change: Any
) -> tuple[list[str], list[str]]:
    said: list[tuple[str, str]] = []
    commands = commands_of(
        operations.built, kernel, responses=found(**change), reasons=said, stage=stage
    )
    return commands, [text for _, text in said]


def test_a_whole_kernel_is_left_alone_without_a_word() -> None:
    assert run() == ([], [])


def test_a_missing_kernel_is_built_through_its_spec() -> None:
    commands, said = run(stamp=None, artifact="not there", cached=False)
    folder = f"/var/lib/umlaan/umlaan/kernels/{KERNEL.id}"
    assert len(commands) == 2
    assert commands[0].startswith(f"umlaan-agent spec {folder}/spec.json ")
    assert commands[1] == (
        "umlaan-agent run --step 'UML kernel' "
        f"--log /var/lib/umlaan/umlaan/log/kernel-{KERNEL.id}.log --progress kbuild -- "
        f"sh -ec 'umlaan-agent kernel-build {folder}/spec.json'"
    )
    assert said == ["UML kernel: build, linux-source-6.1 6.1.1-1: none there yet"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"stamp": {"key": "j", "inputs": {**INPUTS, "options": {}}}, "cached": False},
            "UML kernel: rebuild, CONFIG_UML_NET_TUNTAP n → y",
        ),
        (
            {"stamp": None, "previous": {"inputs": {**INPUTS, "options": {}}}, "cached": True},
            "UML kernel: take from the cache, CONFIG_UML_NET_TUNTAP n → y",
        ),
        (
            {"artifact": "linux is truncated: 1 of 2 bytes", "cached": True},
            "UML kernel: restore from the cache, linux is truncated: 1 of 2 bytes",
        ),
        (
            {"artifact": "linux is missing", "cached": False},
            "UML kernel: rebuild, linux is missing",
        ),
        (
            {"stamp": None, "previous": {"inputs": INPUTS}, "cached": True},
            "UML kernel: take from the cache, as another one here but with a name of its own",
        ),
    ],
)
def test_each_difference_is_said_and_brought(change: dict[str, Any], said: str) -> None:
    commands, reasons = run(**change)
    assert reasons == [said]
    assert len(commands) == 2


def test_faults_fail_at_execute_and_are_only_said_before() -> None:
    fault = "kernel.overlays: /x: no such directory"
    commands, said = run(faults=[fault], key=None)
    assert commands == [fault]
    assert said == [fault]
    commands, said = run(stage=StateStage.Prepare, faults=[fault], key=None)
    assert said == [fault]
    assert "kernel-build" in commands[-1]


def test_a_missing_fragment_is_one_message(tmp_path: Path) -> None:
    kernel = Kernel.model_validate({"fragments": ["nowhere/x.config"]})
    commands, _ = run(kernel)
    assert len(commands) == 1
    assert commands[0].startswith("kernel.fragments: nowhere/x.config: no such file here or in ")


def test_a_bad_fragment_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.config"
    path.write_text("CONFIG_NET=y\nnonsense\n")
    commands, _ = run(Kernel.model_validate({"fragments": [str(path)]}))
    assert commands[0].startswith(f"{path}:2: 'nonsense' is neither CONFIG_NAME=value")


def test_a_base_file_of_this_machine_travels_in_the_spec(tmp_path: Path) -> None:
    path = tmp_path / "guest.config"
    path.write_text("CONFIG_DVKIPC=y\n")
    merged, base = operations.wanted(Kernel.model_validate({"base": str(path), "fragments": []}))
    assert merged == ({}, {}, [])
    assert base == "CONFIG_DVKIPC=y\n"
    on_host = Kernel.model_validate({"base": "/nonexistent/guest.config", "fragments": []})
    assert operations.wanted(on_host)[1] is None
    with pytest.raises(ValueError, match="kernel.base: configs/x: no such file"):
        operations.wanted(Kernel.model_validate({"base": "configs/x", "fragments": []}))
