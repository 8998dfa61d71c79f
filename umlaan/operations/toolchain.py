"""What the builds need on a lab host: Debian packages, and build roots of other suites."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from pyinfra.api.command import QuoteString

from umlaan.agent.spec import encode
from umlaan.facts.base import agent
from umlaan.facts.toolchain import BuildRootState, MissingPackages
from umlaan.model.toolchain import BuildRoot
from umlaan.operations.common import (
    agent_command,
    agent_fact,
    carrier,
    lab_fact,
    lab_host,
    long_command,
    why,
)
from umlaan.operations.operation import operation
from umlaan.plan import toolchain as plan

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand

_INSTALL = (
    "apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install -y --no-install-recommends"
)


@operation()
def packages(wanted: Sequence[str]) -> Generator[PyinfraCommand, None, None]:
    """Debian packages installed on the lab host; only those missing, lists renewed only if needed.

    + wanted: package names

    Fails with apt's last lines where a package cannot be installed.
    """
    missing = lab_fact(MissingPackages, tuple(wanted))
    if not missing:
        return
    why(f"system packages: install {', '.join(missing)}")
    names = shlex.join(missing)
    yield long_command(
        "System packages",
        "export DEBIAN_FRONTEND=noninteractive\n"
        f"{_INSTALL} {names} || {{ apt-get -q update && {_INSTALL} {names}; }}",
        "packages.log",
    )


@operation()
def build_root(root: BuildRoot) -> Generator[PyinfraCommand, None, None]:
    """A Debian suite and architecture with a compiler, made once by mmdebstrap.

    + root: suite, architecture, mirror and further packages

    Fails, naming the mirror, where it does not carry the suite.
    """
    spec = plan.build_root(root, lab_host().cache_dir)
    assert spec is not None
    if agent_fact(BuildRootState, spec["dir"]):
        return
    why(f"build root {spec['label']}: make, none there yet")
    path = f"{spec['dir']}.spec.json"
    yield agent_command("spec", QuoteString(path), encode(spec))
    yield long_command(
        f"Build root {spec['label']}",
        f"{agent(carrier())} buildroot {shlex.quote(path)}",
        f"buildroot-{root.suite}-{root.arch}.log",
    )
