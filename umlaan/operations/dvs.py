"""The DVS's two variants, built in copies of umlaan's own, and the guest's tarball.

Procedure: "Se compilan las librerias dvs/dvk-lib en su version CONFIG_DVKIOCTL" and CONFIG_DVKIPC,
"Se hace un tar del directorio DVS".
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import FileUploadCommand, QuoteString, StringCommand

from umlaan.agent import dvstar, index
from umlaan.agent.spec import encode
from umlaan.agent.unpack import kind_of
from umlaan.facts.base import agent
from umlaan.facts.dvs import DvsBuilds
from umlaan.model.dvs import Dvs
from umlaan.model.hostkernel import Builder, HostModule
from umlaan.operations.beside import BesideCommand
from umlaan.operations.builder import (
    Bring,
    build_command,
    builder,
    builder_fact,
    builder_host,
    unreachable,
)
from umlaan.operations.common import (
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
from umlaan.plan import dvs as plan

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand


def source_on_host(dvs: Dvs) -> tuple[str, str | None]:
    """(path on the lab host, folder here to upload first or None).

    A relative source is the project's own, on the machine that runs pyinfra; over ssh it travels
    as a tarball named by its content.
    """
    if dvs.source.startswith("/"):
        return dvs.source, None
    here = Path.cwd() / dvs.source
    if type(carrier().connector).__name__ != "SSHConnector":
        return str(here), None
    cache = str(Path.home() / ".cache" / "umlaan")
    rows = index.manifest(str(here), frozenset(dvs.exclude), cache)
    digest = index.manifest_hash(rows)[:24]
    return f"{lab_host().cache_dir}/dvs/upload-{digest}.tar.gz", str(here)


def not_to_be_sent(dvs: Dvs) -> str | None:
    """Why a source of the project's cannot go to a lab host behind ssh; None where it can."""
    here = Path.cwd() / dvs.source
    if dvs.source.startswith("/") or type(carrier().connector).__name__ != "SSHConnector":
        return None
    kind = kind_of(str(here))
    if kind == "directory":
        return None
    return (
        f"dvs.source: {here}: a relative path is a folder of the project on the machine that runs "
        f"pyinfra, and there is {'nothing' if kind == 'nothing' else 'a ' + kind}; for a tarball "
        "on the lab host give its absolute path"
    )


def _modules() -> tuple[HostModule, ...]:
    """The modules that this lab host builds for a kernel of its own."""
    settings = lab().settings(carrier().name)
    return settings.host_modules if settings.host_kernel else ()


def _upload(dvs: Dvs, here: str, target: str) -> Iterator[Any]:
    cache = Path.home() / ".cache" / "umlaan"
    cache.mkdir(parents=True, exist_ok=True)
    rows = index.manifest(here, frozenset(dvs.exclude), str(cache))
    packed = str(cache / Path(target).name)
    dvstar.write_tarball(here, rows, packed, "dvs")
    # Root unpacks and builds it: nobody else may write to it, whatever the umask is there.
    yield StringCommand("install", "-D", "-m", "600", "/dev/null", QuoteString(f"{target}.new"))
    yield FileUploadCommand(packed, f"{target}.new", remote_temp_filename=f"{target}.tmp")
    yield StringCommand("mv", QuoteString(f"{target}.new"), QuoteString(target))


def _todo(dvs: Dvs, rows: dict[str, Any]) -> list[str]:
    """The variants that are not there as they should be; why, is said of each."""
    todo: list[str] = []
    for variant in dvs.variants:
        if variant in rows:
            reasons = plan.reasons(variant, rows[variant])
        else:
            reasons = [f"DVS {variant}: build, it is not there yet"]
        for reason in reasons:
            why(reason)
        if reasons:
            todo.append(variant)
    return todo


@operation()
def built(dvs: Dvs) -> Generator[PyinfraCommand, None, None]:
    """Both variants built and installed in the lab host's state folder, and dvs.tar.gz written.

    It goes on beside the next operations (``beside``).

    + dvs: the user's tree and its build as data

    Fails, naming the step, its command and the log, where a make fails or the source is missing.
    """
    if not dvs.steps:
        yield from fail("dvs.steps: empty: name the directories in which make is to run")
        return
    if which := builder():
        yield from _elsewhere(dvs, which)
        return
    if fault := not_to_be_sent(dvs):
        yield from fail(fault)
        return
    source, upload = source_on_host(dvs)
    wanted = plan.spec(dvs, lab_host(), source, _modules())
    text = encode(wanted)
    found = agent_fact(DvsBuilds, text)
    if found is None or found["source"] is None:
        if upload is None:
            if executing() or found is not None:
                kind = (found or {}).get("kind", "nothing")
                what = "no such" if kind == "nothing" else f"is a {kind}, no"
                yield from fail(f"dvs.source: {source}: {what} directory or tarball on the host")
            return
        why(f"DVS source: upload {upload}")
        yield from _upload(dvs, upload, source)
        rows: dict[str, Any] = {}
    else:
        rows = found["variants"]
    todo = _todo(dvs, rows)
    if not todo:
        return
    words = ["dvs", "build", text, *todo]
    step = f"DVS {' and '.join(todo)}"
    command = f"{agent(carrier())} {shlex.join(words)}"
    yield BesideCommand(step, long_command(step, command, "dvs-build.log"))


def _elsewhere(dvs: Dvs, which: Builder) -> Generator[PyinfraCommand, None, None]:
    """Built on the builder, in its cache; brought to the lab host's cache, installed from there."""
    if fault := unreachable(which):
        yield from fail(fault)
        return
    local = type(builder_host(which).connector).__name__ == "LocalConnector"
    if not dvs.source.startswith("/") and not local:
        yield from fail(
            f"dvs.source: {dvs.source}: a relative path is a folder of the project on the machine "
            f"that runs pyinfra, and {which.name}, which builds, is another one; put the tree "
            "there and give its absolute path"
        )
        return
    source = dvs.source if dvs.source.startswith("/") else str(Path.cwd() / dvs.source)
    there = plan.spec(dvs, lab().host(which.name), source)
    words = encode(there)
    made = builder_fact(which, DvsBuilds, words)
    if made is None or made["source"] is None:
        yield from fail(f"dvs.source: {source}: no such directory or tarball on {which.name}")
        return
    given = {"source": made["source"], "compiler": made["compiler"]}
    text = encode({**plan.spec(dvs, lab_host(), source, _modules()), "given": given})
    found = agent_fact(DvsBuilds, text)
    rows = found["variants"] if found else {}
    todo = {variant: made["variants"][variant] for variant in _todo(dvs, rows)}
    if not todo:
        return
    to_make = [variant for variant, row in todo.items() if not row["built"]]
    if to_make:
        command = ["dvs", "make", words, *to_make]
        yield build_command(which, f"DVS {' and '.join(to_make)}", command, "dvs-build.log")
    for variant, row in todo.items():
        if not rows.get(variant, {}).get("built"):
            origin = f"{which.cache_dir}/dvs/{row['key']}"
            yield Bring(which, f"DVS {variant}", origin, f"{lab_host().cache_dir}/dvs/{row['key']}")
    install = shlex.join(["dvs", "install", text, *todo])
    yield long_command("DVS install", f"{agent(carrier())} {install}", "dvs-build.log")
