"""A build that its tree's maker wrote to do harm: it has its results to write, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_root_sandbox import content
from umlaan.agent import dvs
from umlaan.agent.chamber import OUT, TREE, Chamber

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
MAKEFILE = """\
all:
	-echo evil >$(VICTIM)/owned
	-rm $(VICTIM)/kept
	-echo evil >/proc/1/root$(VICTIM)/owned
	-echo evil >/etc/umlaan-evil
	-hostname umlaan-evil
	-: >>/proc/sys/kernel/printk
	ls /run >runs
	grep -c : /proc/net/dev >links
	ls -d /proc/[0-9]* | wc -l >processes
	touch $(OUT)/done
"""


@pytest.fixture
def victim() -> Iterator[Path]:
    """A folder of the machine's that a build sees: not below /tmp, which it does not."""
    folder = Path("/var/tmp") / f"umlaan-victim-{os.getpid()}"
    folder.mkdir()
    (folder / "kept").write_text("the machine's own\n")
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def harmless(victim: Path, work: Path, words: list[str]) -> None:
    """Run, and see that only the work's folder is another one."""
    before, name = content(victim), os.uname().nodename
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert content(victim) == before
    assert os.uname().nodename == name
    assert not Path("/etc/umlaan-evil").exists()
    assert (work / "runs").read_text() == ""
    assert (work / "links").read_text() == "1\n"
    # make, its shell, ls and wc.
    assert int((work / "processes").read_text()) <= 5


def test_a_build_with_this_machine_s_compilers(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE)
    chamber = Chamber(str(tmp_path), writable={"/usr/src/work": str(tmp_path)})
    words = ["make", "-C", "/usr/src/work", f"VICTIM={victim}", "OUT=/usr/src/work"]
    harmless(victim, tmp_path, chamber.argv(words))
    assert (tmp_path / "done").exists()
    assert not Path("/usr/src/work").exists()


def test_a_step_of_a_dvs_tree(tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / "dvs"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    spec = {"cache": str(tmp_path), "buildroot": None, "dest": "/usr/src/dvs"}
    step = {"dir": ".", "targets": ["all"], "variables": {"VICTIM": str(victim), "OUT": "."}}
    before = content(victim)
    dvs._run_step(spec, "ipc", str(folder), step)
    assert content(victim) == before
    assert (folder / "done").exists()
    with pytest.raises(SystemExit, match="exit code"):
        dvs._run_step(spec, "ipc", str(folder), {**step, "command": f"echo >{victim}/x"})
    assert content(victim) == before


def test_sources_are_read_only(tmp_path: Path) -> None:
    for name in ("tree", "out"):
        (tmp_path / name).mkdir()
    chamber = Chamber(
        str(tmp_path),
        read_only={TREE: str(tmp_path / "tree")},
        writable={OUT: str(tmp_path / "out")},
    )
    script = f"touch {OUT}/x; touch {TREE}/x; touch /usr/bin/x; echo >/dev/null; pwd"
    done = subprocess.run(
        chamber.argv(["sh", "-c", script]), capture_output=True, text=True, check=False
    )
    assert done.stdout == "/\n"
    assert done.stderr.count("Read-only file system") == 2
    assert os.listdir(tmp_path / "out") == ["x"]


def test_a_folder_in_the_place_of_a_link_is_not_filled_through_it(
    tmp_path: Path, victim: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/sub").symlink_to(victim)
    (tmp_path / "file").write_text("new")
    before = content(victim)
    dvs._place(str(tmp_path), f"{tmp_path}/state/sub", ["dir", 0o755, None])
    dvs._place(str(tmp_path / "file"), f"{tmp_path}/state/sub/file", ["file", 0o644, "x"])
    assert content(victim) == before
    assert (tmp_path / "state/sub/file").read_text() == "new"
