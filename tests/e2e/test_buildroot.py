"""A build root for real: bullseye/i386 by mmdebstrap, a 32-bit kernel-shaped tree built in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import kernel_build, kernel_state
from umlaan.agent.chamber import BuildError
from umlaan.model.kernel import Kernel
from umlaan.model.toolchain import BuildRoot
from umlaan.plan import kernel as plan
from umlaan.plan.toolchain import build_root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mmdebstrap and mounts need root")
ROOT = BuildRoot(suite="bullseye", arch="i386")
MAKEFILE = """\
VERSION = 4
PATCHLEVEL = 9
SUBLEVEL = 88
KCONFIG_CONFIG ?= $(O)/.config
allnoconfig:
	@: >$(KCONFIG_CONFIG)
olddefconfig:
	@:
linux:
	@echo '  CC      linux'
	@test "$$(uname -m)" = i686
	@test -r /usr/src/dvs/include/dvs.h
	@! touch /usr/src/dvs/include/x 2>/dev/null
	@$(CC) -static -o $(O)/linux $(CURDIR)/main.c -I/usr/src/dvs/include
kernelrelease:
	@echo 4.9.88-small
"""
MAIN = """\
#include <stdio.h>
#include <dvs.h>
int main(void) { printf("4.9.88-%d\\n", (int)(8 * sizeof(long)) + DVS); return 0; }
"""


def agent(*words: str) -> subprocess.CompletedProcess[str]:
    """A verb of the agent as an operation would call it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-S", "-m", "umlaan.agent", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buildroot")
    spec = build_root(ROOT, str(folder / "cache"))
    assert spec
    (folder / "spec.json").write_text(json.dumps(spec))
    assert agent("buildroot", "--state", spec["dir"]).stdout == "null\n"
    made = agent("buildroot", str(folder / "spec.json"))
    assert made.returncode == 0, made.stderr
    stamp = json.loads(agent("buildroot", "--state", spec["dir"]).stdout)
    assert stamp["glibc"] == "2.31"
    assert "10.2.1" in stamp["compiler"]
    return folder / "cache"


def spec_of(cache: Path, tree: Path, dvs: Path, **data: Any) -> Any:
    kernel = Kernel.model_validate(
        {
            **{"source": str(tree), "subarch": "i386", "toolchain": ROOT, "fragments": []},
            **{"beside": {"/usr/src/dvs/include": str(dvs)}, **data},
        }
    )
    made = plan.spec(kernel, {}, str(tree.parent / "state"), str(cache))
    return json.loads(json.dumps(made))


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    tree, dvs = tmp_path / "linux", tmp_path / "dvs"
    tree.mkdir()
    dvs.mkdir()
    (tree / "Makefile").write_text(MAKEFILE)
    (tree / "main.c").write_text(MAIN)
    (dvs / "dvs.h").write_text("#define DVS 0\n")
    return tree, dvs


def test_a_32_bit_kernel_runs_on_the_host(cache: Path, trees: tuple[Path, Path]) -> None:
    spec = spec_of(cache, *trees)
    kernel_build.converge(spec, 2)
    linux = Path(spec["dir"], "linux")
    assert linux.read_bytes()[:5] == b"\x7fELF\x01"
    said = subprocess.run([linux, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == "4.9.88-32\n"
    assert plan.reasons(kernel_state.state(spec)) == []
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert str(cache) not in mounts.read()


def test_a_changed_header_beside_is_a_reason(cache: Path, trees: tuple[Path, Path]) -> None:
    spec = spec_of(cache, *trees)
    kernel_build.converge(spec, 2)
    (trees[1] / "dvs.h").write_text("#define DVS 1000\n")
    assert plan.reasons(kernel_state.state(spec)) == [
        f"UML kernel: rebuild, tree {trees[1]} changed"
    ]
    kernel_build.converge(spec, 2)
    said = subprocess.run([f"{spec['dir']}/linux"], capture_output=True, text=True, check=True)
    assert said.stdout == "4.9.88-1032\n"


def test_a_build_root_that_is_gone_is_no_reason_but_cannot_build(
    cache: Path, trees: tuple[Path, Path]
) -> None:
    spec = spec_of(cache, *trees)
    kernel_build.converge(spec, 2)
    spec["toolchain"] = {**spec["toolchain"], "dir": f"{cache}/buildroot/none"}
    assert plan.reasons(kernel_state.state(spec)) == []
    (trees[0] / "main.c").write_text(MAIN + "int more;\n")
    with pytest.raises(BuildError, match="the toolchain is not installed yet"):
        kernel_build.converge(spec, 2)


def test_a_suite_that_the_mirror_lacks_is_one_clear_error(tmp_path: Path) -> None:
    spec = build_root(BuildRoot(suite="nosuch", arch="i386"), str(tmp_path))
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = agent("buildroot", str(tmp_path / "spec.json"))
    assert done.returncode == 1
    assert "does not carry the suite nosuch" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mirror_that_does_not_answer_is_named(tmp_path: Path) -> None:
    root = BuildRoot(suite="bookworm", mirror="http://127.0.0.1:9/debian")
    (tmp_path / "spec.json").write_text(json.dumps(build_root(root, str(tmp_path))))
    done = agent("buildroot", str(tmp_path / "spec.json"))
    assert done.returncode == 1
    assert "the mirror http://127.0.0.1:9/debian does not answer" in done.stderr
