"""operations.dvs: the agent's answer -> the exact command, and nothing where nothing differs."""

from __future__ import annotations

import json

import pytest

from tests.operations.support import LAB, NODE, commands_of
from umlaan.model.dvs import Dvs
from umlaan.model.hostkernel import Builder, HostModule
from umlaan.model.kernel import Kernel
from umlaan.operations import builder, dvs, kernel, module

TREE = Dvs.model_validate({"source": "/usr/src/dvs", "steps": [{"dir": "lib"}]})
INPUTS = {"source": "s", "compiler": "gcc 12", "steps": []}
SAME = {
    "key": "k",
    "inputs": INPUTS,
    "stamp": INPUTS,
    "drift": [],
    "changed_files": [],
}
TAR = {"tarball": "t", "tarball_wanted": "t"}


def answer(ioctl: dict[str, object], ipc: dict[str, object]) -> dict[str, str]:
    state = {"source": "s", "variants": {"ioctl": ioctl, "ipc": ipc}}
    return {"umlaan-agent dvs state": json.dumps(state)}


def test_nothing_differs_nothing_is_done() -> None:
    reasons: list[tuple[str, str]] = []
    said = answer(SAME, {**SAME, **TAR})
    assert commands_of(dvs.built, TREE, responses=said, reasons=reasons) == []
    assert reasons == []


def test_only_the_variant_that_differs_is_built() -> None:
    reasons: list[tuple[str, str]] = []
    changed = {**SAME, **TAR, "stamp": {**INPUTS, "compiler": "gcc 10"}}
    commands = commands_of(dvs.built, TREE, responses=answer(SAME, changed), reasons=reasons)
    assert reasons == [("@fake/lab", "DVS ipc: rebuild, compiler gcc 10 → gcc 12")]
    assert len(commands) == 1
    head = "umlaan-agent run --step 'DVS ipc' --log /var/lib/umlaan/umlaan/log/dvs-build.log"
    assert commands[0].startswith(f"{head} --progress lines -- sh -ec 'umlaan-agent dvs build ")
    assert commands[0].endswith(" ipc'")


def test_a_missing_source_is_a_message() -> None:
    said = {"umlaan-agent dvs state": json.dumps({"source": None, "variants": {}})}
    commands = commands_of(dvs.built, TREE, responses=said)
    assert commands == [
        "dvs.source: /usr/src/dvs: no such directory or tarball on the host",
    ]


def test_no_steps_is_a_message() -> None:
    said = {"umlaan-agent dvs state": json.dumps({"source": "s", "variants": {}})}
    commands = commands_of(dvs.built, Dvs(source="/usr/src/dvs"), responses=said)
    assert commands == ["dvs.steps: empty: name the directories in which make is to run"]


def test_a_folder_of_the_project_is_not_looked_for_on_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dvs, "builder", lambda: Builder(name=LAB, cache_dir="/c"))
    tree = TREE.model_copy(update={"source": "examples/sample-dvs"})
    (said,) = commands_of(dvs.built, tree)
    assert said.startswith("dvs.source: examples/sample-dvs: a relative path is a folder of the")
    assert said.endswith(
        f"{LAB}, which builds, is another one; put the tree there and give its absolute path"
    )


def test_a_builder_that_failed_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    which = Builder(name=NODE, cache_dir="/c")
    said = [f"builder {NODE} failed earlier in this run: what it is to build cannot be compared"]
    said[0] += " or brought"
    monkeypatch.setattr(dvs, "builder", lambda: which)
    assert commands_of(dvs.built, TREE, failed=[NODE]) == said
    monkeypatch.setattr(kernel, "builder", lambda: which)
    plain = Kernel.model_validate({"fragments": []})
    assert commands_of(kernel.built, plain, failed=[NODE]) == said
    monkeypatch.setattr(builder, "builder", lambda: which)
    small = HostModule(name="small", source="/small")
    assert commands_of(module.built, small, plain, failed=[NODE]) == said
