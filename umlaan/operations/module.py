"""A module for the host kernel: built against it, tested on it, put in its places.

Procedure: "dvk.ko": "Una vez realizadas las pruebas locales, … debe quedar instalado en
dvs/dvk-mod".
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
from umlaan.facts.base import agent
from umlaan.facts.hostkernel import HostModuleBuild, HostModulesLeft, HostModuleState
from umlaan.model.hostkernel import Builder, HostModule
from umlaan.model.kernel import Kernel
from umlaan.operations import builder as builders
from umlaan.operations import kernel as kernels
from umlaan.operations import reboot
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
from umlaan.plan import kernel as kernel_plan
from umlaan.plan import module as plan

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand

_REBOOT = "module {name}: reboot, only that takes the loaded one out of the kernel"


def build_spec(module: HostModule, kernel: Kernel, which: Builder | None) -> dict[str, Any]:
    """The agent's spec on the machine that builds. ValueError as ``kernel.wanted`` says it."""
    where = lab_host()
    merged, base = kernels.wanted(kernel)
    cache = which.cache_dir if which else where.cache_dir
    top = f"{cache}/built" if which else where.state_dir
    source = module.source
    if not source.startswith(("/", "kernel:")):
        source = str(Path.cwd() / source)
    built = kernel_plan.spec(kernel, merged.options, top, cache, base, merged.ranges)
    dvs = lab().settings(carrier().name).dvs
    made = plan.spec(module, source, where, cache, built, dvs.debug if dvs else 0)
    # On a builder a folder for each lab host: the module of one is not that of another's kernel.
    below = f"{lab().name}/{carrier().name.replace('/', '_')}/" if which else ""
    return {**made, "dir": f"{top}/modules/{below}{module.name}"}


@operation()
def built(module: HostModule, kernel: Kernel) -> Generator[PyinfraCommand, None, None]:
    """The module of this source and kernel, tested on the running host kernel, placed and loaded.

    + module: source, make's words, tests, places, and how it is loaded
    + kernel: the host kernel, built already

    Where another kernel runs than the one it is for, it is built but its tests and its loading
    wait, and that is said. Fails where make, the vermagic or a test fails: then it is not placed;
    and where another one is loaded that something uses.
    """
    which = builders.builder()
    if fault := builders.unreachable(which):
        yield from fail(fault)
        return
    try:
        spec = build_spec(module, kernel, which)
    except ValueError as error:
        yield from fail(str(error))
        return
    name = module.name
    word = encode(spec)
    if which:
        found = builders.builder_fact(which, HostModuleBuild, word)
    else:
        found = agent_fact(HostModuleBuild, word)
    if found is None or (found["problem"] and executing()):
        yield from fail(f"module {name}: {found['problem'] if found else 'state unknown'}")
        return
    rows = plan.build_reasons(name, found)
    if rows:
        for row in rows:
            why(row)
        yield from _build(name, spec, word, which)
    yield from _placed(module, spec, found, which, building=bool(rows))


def _build(
    name: str, spec: dict[str, Any], word: str, which: Builder | None
) -> Generator[PyinfraCommand, None, None]:
    path, log, step = f"{spec['dir']}.json", f"module-{name}.log", f"Module {name}"
    if which:
        on = agent(builders.builder_host(which))
        yield builders.BuildCommand(which, on, "spec", QuoteString(path), word)
        yield builders.build_command(which, step, ["module", "build", path], log)
        return
    yield agent_command("spec", QuoteString(path), word)
    yield long_command(step, f"{agent(carrier())} module build {shlex.quote(path)}", log)


def _placed(
    module: HostModule,
    spec: dict[str, Any],
    found: dict[str, Any],
    which: Builder | None,
    *,
    building: bool,
) -> Generator[PyinfraCommand, None, None]:
    where = lab_host()
    here = {**spec, "dir": f"{where.state_dir}/modules/{module.name}", "kernel": {}}
    word = encode(here)
    state = agent_fact(HostModuleState, word)
    key = None if building and not executing() else found["key"]
    rows = plan.place_reasons(module.name, key, state) if state else []
    release = found["inputs"].get("release", "the one to be built")
    here_runs = state is not None and state["running"] == release
    if rows and which and (building or state["here"] != key):
        why(f"module {module.name}: bring from builder {which.name}")
        yield builders.Bring(which, f"module {module.name}", spec["dir"], here["dir"])
    tests_wait = bool(rows and module.tests)
    if state and not here_runs and (tests_wait or module.load):
        what = "its tests wait for a reboot" if tests_wait else "it is loaded after a reboot"
        text = f"running {state['running']}, wanted {release}: {what}"
        logger.warning(f"{context_host.print_prefix}module {module.name}: {text}")
        if tests_wait:
            return
    if rows:
        for row in rows:
            why(row)
        step = f"Module {module.name}: tests and places"
        log = f"module-{module.name}.log"
        yield long_command(step, f"{agent(carrier())} module place {word}", log)
        # What is loaded is compared with what was placed just now.
        state = agent_fact(HostModuleState, word) if executing() else state
        # A new build; a plan cannot look whether the loaded one differs from it.
        new = state is not None and (state["stamp"] or {"key": None})["key"] != found["key"]
        stays = here_runs and module.load and not module.unload and new and state["loaded"]
        if not executing() and stays and _may_reboot():
            why(_REBOOT.format(name=module.name))
    if here_runs and state and state["load"]:
        for row in plan.load_reasons(module.name, state):
            why(row)
        if state["stuck"] and _may_reboot():
            why(_REBOOT.format(name=module.name))
            yield agent_command("module", "arm", word)
            yield from reboot.again()
        yield agent_command("module", "load", word, live=True)


def _may_reboot() -> bool:
    return reboot.allowed() and not reboot.failed()


@operation()
def removed(keep: tuple[str, ...] = ()) -> Generator[PyinfraCommand, None, None]:
    """What modules of this lab left outside its state folder, away; what stood there comes back.

    + keep: names of those that stay, in a lab that goes on

    A file that is no longer what was placed stays, and that is said.
    """
    word = encode(plan.leaving(lab_host(), keep))
    found = agent_fact(HostModulesLeft, word)
    if not found:
        return
    why(f"host modules: remove {', '.join(found)}")
    yield agent_command("module", "away", word, live=True)
