"""A lab a module, destroyed at its end whatever happened; leftovers are a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab of this module's own, in a short folder (UML's sockets need short paths)."""
    folder = Path(tempfile.mkdtemp(prefix="umlaan-e2e-", dir="/var/tmp"))
    word = request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")[:12]
    made = Lab(name=f"e2e-{word}-{os.getpid()}", folder=folder)
    yield made
    result = made.destroy()
    left = leftovers(made)
    if made.state_dir.exists() and result.verdict == "absent":
        left.append(str(made.state_dir))
    shutil.rmtree(folder, ignore_errors=True)
    assert result.verdict == "absent", result.output
    assert not left


def leftovers(lab: Lab) -> list[str]:
    """Namespaces, mounts and processes of a lab that is gone."""
    spaces = subprocess.run(["ip", "netns"], text=True, capture_output=True).stdout.splitlines()
    found = [line for line in spaces if line.split()[:1] == [lab.name]]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [line for line in mounts if str(lab.folder) in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(lab.state_dir) in words and "pytest" not in words:
            found.append(words)
    return found
