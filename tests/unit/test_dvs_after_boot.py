"""What an earlier boot left of the DVS is void: its tables, its DC's file; and who makes a DC."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.sample_dvs import build, copy_tree
from tests.unit.test_dvs_sides import SAMPLE
from umlaan.agent import dvslook, dvsservices, dvsup
from umlaan.model.lab import HostData, build_lab
from umlaan.plan import dvssides

BOOT = Path("/proc/sys/kernel/random/boot_id")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a DC is a PID namespace: needs root")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy_tree(tmp_path_factory.mktemp("tree"))
    build(made, "ioctl")
    return made


@pytest.fixture
def side(tmp_path: Path, tree: Path) -> Any:
    """A lab host of the sample tree, alone, its DC ended afterwards."""
    data = {"dvs": SAMPLE, "network": {"namespace": None}, "state_dir": str(tmp_path / "lab")}
    one = dvssides.sides(build_lab([HostData("@local", False, data)]))[0]
    Path(one["tree"]).parent.mkdir(parents=True)
    Path(one["tree"]).symlink_to(tree)
    script = Path(one["folder"]) / "up"
    script.parent.mkdir()
    script.write_text(one["files"][str(script)])
    script.chmod(0o755)
    yield one
    for command in (one["dcs"][0]["end"], one["init_end"]):
        subprocess.run(["sh", "-c", command], check=False, capture_output=True)


def up(side: Any) -> None:
    done = subprocess.run([f"{side['folder']}/up"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def as_of_another_boot(side: Any) -> None:
    """All that a machine that was switched off and on has left on its disk."""
    before = dvslook.look(side)["dcs"]["0"]["pid"]
    subprocess.run(["sh", "-c", side["dcs"][0]["end"]], check=True, capture_output=True)
    boot = BOOT.read_text().strip().encode()
    other = b"00000000-0000-4000-8000-000000000000"
    for path in (Path(side["state"]) / ".dvk", Path(side["run"]) / "dvs-init"):
        assert boot in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(boot, other))
    Path(side["dcs"][0]["file"]).write_text(f"DC0={before}\n")


def test_the_tables_of_an_earlier_boot_are_no_tables(side: Any) -> None:
    up(side)
    view = dvslook.look(side)
    assert "nodeid=0" in view["files"]["info"] and view["init"] == side["init"]
    assert view["dcs"]["0"]["fault"] is None
    as_of_another_boot(side)
    view = dvslook.look(side)
    assert view["files"] == {} and view["init"] is None
    assert view["dcs"]["0"]["fault"]


def test_after_a_boot_dvs_and_dc_are_made_anew_and_only_once(side: Any) -> None:
    up(side)
    before = dvslook.look(side)["dcs"]["0"]["pid"]
    up(side)
    assert dvslook.look(side)["dcs"]["0"]["pid"] == before
    as_of_another_boot(side)
    up(side)
    view = dvslook.look(side)
    dc = view["dcs"]["0"]
    assert dc["fault"] is None and dc["pid"] != before, dc
    assert "nodeid=0" in view["files"]["info"] and view["init"] == side["init"]
    up(side)
    assert dvslook.look(side)["dcs"]["0"] == dc


def test_a_record_of_an_older_umlaan_says_nothing_of_the_boot(side: Any) -> None:
    up(side)
    (Path(side["run"]) / "dvs-init").write_text(f"{side['init']}\n")
    view = dvslook.look(side)
    assert "nodeid=0" in view["files"]["info"] and view["init"] == side["init"]
    up(side)
    assert dvslook.look(side)["dcs"] == view["dcs"]


def test_under_systemd_a_unit_makes_the_dc(side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the group of an ssh session it would end, with its UMLs, before any unit is stopped."""
    scripts: list[str] = []

    def run(_side: Any, script: str, *_: Any) -> tuple[int, str, str]:
        scripts.append(script)
        return (1, "", "no such program") if "systemctl restart" in script else (0, "", "")

    monkeypatch.setattr(dvslook, "run_there", run)
    order = {"side": side, "kind": "systemd", "files": {}, "reinit": False, "unbind": []}
    with pytest.raises(
        dvsservices.NotUp, match="node0: .*services/up: exit code 1\n.*no such program"
    ):
        dvsup.up({**order, "restart": [], "gone": []})
    assert len(scripts) == 1
    unit = "umlaan-umlaan-dvs-up.service"
    assert f"systemctl restart {unit}" in scripts[0] and f"-u {unit}" in scripts[0]
    assert f"{side['folder']}/up" not in scripts[0]


def test_a_wait_is_by_the_clock_and_quotes_what_was_said(side: Any) -> None:
    """Where the condition itself takes its time, tries would last for many times the deadline."""
    script = Path(side["folder"]) / "up"
    text = script.read_text().replace("-gt 15 ]", "-gt 1 ]").replace("./test_dvs_init", "echo no;:")
    script.write_text(text.replace("initialised() {", "initialised() {\n    sleep 0.5; return 1"))
    begun = time.monotonic()
    done = subprocess.run([script], capture_output=True, text=True)
    assert done.returncode == 1 and "waited 15 s for nodeid=0 in" in done.stderr
    assert done.stderr.endswith("in vain\nno\n")
    assert time.monotonic() - begun < 10


def test_a_dvs_without_an_end_of_its_own_is_not_said_to_be_down(side: Any) -> None:
    up(side)
    order = {"side": dvssides.asked({**side, "init_end": None}), "kind": "own"}
    said = dvsup.down(order)
    assert "the DVS stays initialised until the next boot" in said
    assert dvslook.look(side)["dcs"]["0"]["fault"]
    assert dvsup.down({**order, "side": dvssides.asked(side)}) == "node0: DVS down"


def ready(side: Any) -> bool:
    """What every service asks before it starts, of its own shell alone: no search path is left."""
    script = (Path(side["folder"]) / "up").read_text()
    begin = script.index("# ready:")
    asked = script[begin : script.index("# One at a time;")]
    return subprocess.run(["sh", "-c", f"PATH=\n{asked}\nready"], check=False).returncode == 0


def test_a_service_knows_without_a_process_that_all_is_up(side: Any) -> None:
    assert not ready(side)
    up(side)
    assert ready(side)
    as_of_another_boot(side)
    assert not ready(side), "a DC that has ended"
    up(side)
    assert ready(side)
    record = Path(side["run"]) / "dvs-ready"
    lines = record.read_text().splitlines()
    record.write_text("\n".join([lines[0], lines[1].rpartition(" ")[0] + " 1"]) + "\n")
    assert not ready(side), "another process has the pid of the DC's init"
    record.write_text("\n".join(["00000000-0000-4000-8000-000000000000", lines[1]]) + "\n")
    assert not ready(side), "of another boot"


def test_services_that_start_at_once_make_the_dvs_once(side: Any) -> None:
    script = [f"{side['folder']}/up"]
    environment = {**os.environ, "UMLAAN_SERVICE": "1"}
    running = [subprocess.Popen(script, env=environment) for _ in range(8)]
    assert [one.wait(60) for one in running] == [0] * 8
    assert dvslook.look(side)["dcs"]["0"]["fault"] is None
    # What they left running holds no lock.
    lock = Path(side["run"]) / "dvs-up.lock"
    assert subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 0
