"""The file that names a DC's init: a number is read, nothing is run, only root's is believed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.others import KINDS, UID, public, squat
from tests.unit.test_dvs_sides import SAMPLE
from umlaan.agent import dcfile, dvslook
from umlaan.model.lab import HostData, build_lab
from umlaan.plan import dvssides

__all__ = ["public"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


def asked(path: Path) -> str:
    """What sh reads from it."""
    done = subprocess.run(
        ["sh", "-c", f'{dcfile.READ}\ndc_pid 7 "$0" && echo "$pid"', str(path)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("text", "pid"),
    [
        ("DC7=77\n", "77"),
        ("export DC7=77", "77"),
        ("#!/bin/sh\n\n  export  DC7='77'; export DC7\n", "77"),
        ('DC7="77"\nDC7=78\n', "77"),
        ("DC=9\n", "9"),
        ("DC70=1\nDC7=77\n", "77"),
        ("touch {here}/ran\nDC7=77$(touch {here}/ran)\n", "77"),
        ("DC7=$(touch {here}/ran)\n", ""),
        ("DC7=`touch {here}/ran`;touch {here}/ran\n", ""),
        ("nothing\n", ""),
        ("", ""),
    ],
)
def test_a_number_is_read_and_nothing_is_run(tmp_path: Path, text: str, pid: str) -> None:
    path = tmp_path / "DC7.sh"
    path.write_text(text.replace("{here}", str(tmp_path)))
    assert asked(path) == pid
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_sh_believes_no_file_of_anothers(public: Path, kind: str) -> None:
    squat(public / "DC7.sh", kind)
    assert asked(public / "DC7.sh") == ""


def side_of(public: Path, tmp_path: Path) -> dict[str, Any]:
    """A lab host whose DVS writes its DC's file where everybody may."""
    programs = {**SAMPLE["programs"], "dc_file": f"{public}/DC{{dcid}}.sh", "init": "true"}
    programs |= {"init_dir": ".", "dc_dir": ".", "dc": f"echo made >>{tmp_path}/made"}
    data = {
        "dvs": {**SAMPLE, "programs": programs},
        "network": {"namespace": None},
        "state_dir": str(tmp_path / "lab"),
        "node": {"dcid": 7},
    }
    rows = [HostData("@local", False, data), HostData("@uml/node1", True, data)]
    one = dvssides.sides(build_lab(rows))[0]
    Path(one["tree"]).mkdir(parents=True)
    folder = Path(one["state"])
    (folder / "DC7").mkdir(parents=True)
    (folder / "DC7/info").write_text("there\n")
    (folder / "info").write_text("nodeid=0\n")
    return one


@pytest.mark.parametrize("kind", KINDS)
def test_a_dc_is_not_made_over_what_another_has_put_there(
    public: Path, tmp_path: Path, kind: str
) -> None:
    one = side_of(public, tmp_path)
    squat(public / "DC7.sh", kind)
    script = tmp_path / "up"
    script.write_text(one["files"][f"{one['folder']}/up"])
    script.chmod(0o755)
    done = subprocess.run([script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"node0: {public}/DC7.sh is no file of root's own; remove it" in done.stderr
    assert not (tmp_path / "made").exists()
    found = dvslook.look(one)["dcs"]["7"]
    assert found["pid"] is None
    assert f"{public}/DC7.sh is not believed: it " in found["fault"]


@pytest.mark.parametrize("place", ["host", "guest"])
def test_a_look_runs_nothing_of_anothers(public: Path, tmp_path: Path, place: str) -> None:
    """Even a plan looks: it was sourced by root under --dry."""
    one = {**side_of(public, tmp_path), "place": place}
    path = public / "DC7.sh"
    path.write_text(f"DC7={os.getpid()}; touch {tmp_path}/ran\n")
    os.chown(path, UID, UID)
    found = dvslook.look(one)
    assert found["answers"], found["error"]
    assert not (tmp_path / "ran").exists()
    assert found["dcs"]["7"]["pid"] is None and "is not believed" in found["dcs"]["7"]["fault"]
    os.chown(path, 0, 0)
    found = dvslook.look(one)
    assert not (tmp_path / "ran").exists()
    assert found["dcs"]["7"]["fault"] == f"pid {os.getpid()} is not the init of a PID namespace"
