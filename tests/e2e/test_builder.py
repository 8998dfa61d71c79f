"""Built on another machine, the builder behind ssh, and brought to the lab host by content.

Kernel and DVS are small trees of a test's own, so that the way between the machines is what takes
time; the tests run in order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, Result
from tests.e2e.sshd import ADDRESS, serving
from umlaan.agent.index import hash_file

pytestmark = pytest.mark.timeout(600)
STORY = """from pyinfra.context import host
from tasks import builds, dvs, kernel
from umlaan.inventory import is_lab_host
from umlaan.run import begin

begin()
if is_lab_host(host):
    dvs.build()
    kernel.kernels()
    builds.awaited()
"""
KERNEL = """\
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 7
KCONFIG_CONFIG ?= $(O)/.config
allnoconfig olddefconfig:
\t@touch $(KCONFIG_CONFIG)
linux:
\t@echo '  CC      main.o'
\t@$(CC) -static -o $(O)/linux $(CURDIR)/main.c
kernelrelease:
\t@echo 6.1.7-small
"""
MAIN = '#include <stdio.h>\nint main(void) { puts("6.1.7-small"); return 0; }\n'


@pytest.fixture(scope="module", autouse=True)
def machines(lab: Lab) -> Iterator[None]:
    """node0 is this machine; what is built is built on one behind ssh, with a cache of its own."""
    tree, dvs = lab.folder / "linux", lab.folder / "dvs-source"
    for folder in (tree, dvs / "lib"):
        folder.mkdir(parents=True)
    (tree / "Makefile").write_text(KERNEL)
    (tree / "main.c").write_text(MAIN)
    (dvs / "lib/Makefile").write_text("all: prog\nprog: prog.c\n\tcat prog.c >prog\n")
    (dvs / "lib/prog.c").write_text("int x;\n")
    (lab.folder / "story.py").write_text(STORY)
    lab.data |= {
        "kernel.source": str(tree),
        "kernel.fragments": "[]",
        "dvs.source": str(dvs),
        "dvs.steps": json.dumps([{"dir": "lib"}]),
    }
    lab.node0 = ("@local", {"cache_dir": str(lab.folder / "cache")})
    with serving(lab.folder / "sshd") as data:
        lab.builder = (ADDRESS, {**data, "cache_dir": str(lab.folder / "builder")})
        yield
        assert lab.destroy().verdict == "absent"
        lab.builder = None


def run(lab: Lab) -> Result:
    result = lab.pyinfra(str(lab.folder / "story.py"))
    assert result.failed == 0, result.output
    return result


def kernel(lab: Lab) -> Path:
    (found,) = (lab.state_dir / "kernels").glob("*/linux")
    return found


def test_the_lab_host_gets_what_the_builder_made(lab: Lab) -> None:
    result = run(lab)
    assert f"UML kernel: bring from builder {ADDRESS}, none there yet" in result.output
    stamp = json.loads((kernel(lab).parent / "stamp.json").read_text())
    assert (stamp["release"], stamp["sha256"]) == ("6.1.7-small", hash_file(str(kernel(lab))))
    assert (lab.state_dir / "dvs/ioctl/lib/prog").read_text() == "int x;\n"
    assert (lab.state_dir / "dvs/dvs.tar.gz").exists()
    # Nothing was compiled here: neither source nor output folder.
    here, there = lab.folder / "cache", lab.folder / "builder"
    assert not (here / "source").exists() and not (here / "build").exists()
    assert (there / "source").exists() and (there / "build").exists()
    assert not [*(there / "send").iterdir()]


def test_the_second_run_brings_nothing(lab: Lab) -> None:
    again = run(lab)
    assert again.changed == 0, again.output


def test_what_was_spoilt_here_is_brought_and_not_built_again(lab: Lab) -> None:
    kernel(lab).write_bytes(b"short")
    (lab.state_dir / "dvs/ipc/lib/prog").write_text("spoilt")
    result = run(lab)
    assert "bring from builder" in result.output and "  CC  " not in result.output
    assert hash_file(str(kernel(lab))) in (kernel(lab).parent / "stamp.json").read_text()
    assert (lab.state_dir / "dvs/ipc/lib/prog").read_text() == "int x;\n"
    assert run(lab).changed == 0


def test_a_source_edited_on_the_builder_comes_over(lab: Lab) -> None:
    (lab.folder / "linux/main.c").write_text(f'{MAIN}const char edited[] = "now";\n')
    (lab.folder / "dvs-source/lib/prog.c").write_text("int y;\n")
    before = hash_file(str(kernel(lab)))
    result = run(lab)
    assert "UML kernel: rebuild, source changed" in result.output
    assert "DVS ioctl: rebuild, source changed" in result.output
    assert (lab.state_dir / "dvs/ioctl/lib/prog").read_text() == "int y;\n"
    assert hash_file(str(kernel(lab))) != before
    assert run(lab).changed == 0


def test_a_cache_that_was_deleted_on_either_side_is_no_reason(lab: Lab) -> None:
    shutil.rmtree(lab.folder / "cache")
    assert run(lab).changed == 0


def test_a_builder_that_does_not_answer_is_named(lab: Lab) -> None:
    there = lab.builder
    assert isinstance(there, tuple)
    lab.builder = (ADDRESS, {**there[1], "ssh_port": 1})
    result = lab.pyinfra(str(lab.folder / "story.py"))
    lab.builder = there
    assert (result.code, result.verdict) == (1, "failed")
    assert f"builder {ADDRESS} failed earlier in this run: what it is to build" in result.output
    assert "Traceback" not in result.output
