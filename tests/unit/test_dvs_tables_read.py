"""Tables of /proc/dvs have one reading position for all readers: read whole, again where empty."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_dvs_sides import lab
from umlaan.agent import dvslook
from umlaan.plan import dvssides
from umlaan.plan.templates import render

NODES = """ID Flags Proxies -pxsent- -pxrcvd- 10987654321098765432109876543210 Name
 0     6      -1        0        0 -------------------------------X node0
 1     E       1      587      276 ------------------------------X- node1
"""
PROXIES = """Proxies Flags Sender Receiver --Proxies_Name- 10987654321098765432109876543210
      1     7  12498    12499           node1 ------------------------------X-
      2     3  12498    12499           node2 -----------------------------X--
"""
SIDE: dict[str, Any] = {
    "name": "node1",
    "place": "guest",
    "shell": [],
    "state": "/proc/dvs",
    "run": "/run/umlaan",
    "folder": "/etc/umlaan/dvs",
    "dcs": [],
    "services": [],
}


def lacking(folder: Path, *joins: tuple[int, int]) -> tuple[int, list[str]]:
    """Exit code and words of the join script's own function, for (node, dcid) pairs."""
    side = {
        **{key: str(folder) for key in ("state", "folder", "run")},
        "pauses": [1, 3],
        "joins": [
            {"number": number, "pattern": f"X{'.' * dcid}$", "command": "true"}
            for number, dcid in joins
        ],
        "name": "node1",
        "environment": {},
        "namespace": None,
        "place": "host",
        "dcs": [],
    }
    head, _, _ = render("dvs/join.j2", side=side, log=None).partition("\nready || UMLAAN_SERVICE=1")
    done = subprocess.run(["sh", "-c", f"{head}\nlacking"], check=False, capture_output=True)
    assert done.stderr == b""
    return done.returncode, done.stdout.decode().split()


def test_joined_is_said_of_a_whole_table_only(tmp_path: Path) -> None:
    table = tmp_path / "nodes"
    proxies = tmp_path / "proxies" / "info"
    proxies.parent.mkdir()
    proxies.write_text(PROXIES)
    assert lacking(tmp_path, (1, 1)) == (2, [])
    table.write_text(NODES)
    assert lacking(tmp_path, (1, 1)) == (0, [])
    # Those whose proxy is connected may be joined now; who reads an empty table knows of none.
    assert lacking(tmp_path, (1, 0), (0, 0), (1, 1), (2, 0)) == (0, ["+1", "-4"])
    proxies.write_text("")
    assert lacking(tmp_path, (1, 0), (0, 0), (1, 1), (2, 0)) == (0, ["-1", "-4"])
    table.write_text("")
    assert lacking(tmp_path, (1, 1)) == (3, [])


def test_scripts_never_leave_a_table_before_its_end() -> None:
    folder = Path(__file__).resolve().parents[2] / "templates" / "dvs"
    for name in ("join.j2", "up.j2"):
        text = (folder / name).read_text()
        assert "while read" not in text and "grep" not in text, name


def test_a_look_that_found_an_empty_table_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        f"==> nodes <==\n{text}\n==> @pids <==\n==> @services <==\nkind runit\n"
        for text in ("", NODES)
    ]
    monkeypatch.setattr(dvslook, "run_there", lambda *_: (0, said.pop(0), ""))
    view = dvslook.look(SIDE)
    assert view["files"]["nodes"].startswith(NODES) and said == []


def test_a_guest_whose_sshd_starts_anew_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(dvslook.time, "sleep", pauses.append)
    refused = (255, "", "ssh: connect to host 192.168.1.101 port 22: Connection refused\n")
    whole = (0, f"==> nodes <==\n{NODES}\n==> @services <==\nkind runit\n", "")
    said = [refused, refused, whole]
    monkeypatch.setattr(dvslook, "run_there", lambda *_: said.pop(0))
    assert dvslook.look(SIDE)["answers"] and pauses == [1.0, 1.0]
    said = [refused] * 9
    view = dvslook.look(SIDE)
    assert not view["answers"] and "refused" in view["error"] and len(said) == 9 - dvslook.LOOKS
    # What else goes wrong is told at once.
    said = [(255, "", "Permission denied")]
    assert dvslook.look(SIDE)["error"] == "Permission denied" and said == []


def test_a_table_that_stays_empty_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        dvslook, "run_there", lambda *_: (0, "==> info <==\n==> @pids <==\n==> @services <==\n", "")
    )
    assert dvslook.look(SIDE)["files"]["info"].strip() == ""


def test_how_a_dc_was_made_is_read_beside_its_init(tmp_path: Path) -> None:
    (tmp_path / "DC0").mkdir()
    (tmp_path / "DC0/info").write_text("dcid=0\n")
    (tmp_path / "dvs-dc0").write_text("cd x && ./dc_init a.cfg # of 12\n")
    dcs: list[dict[str, Any]] = [{"dcid": 0, "file": None}, {"dcid": 1, "file": None}]
    side = {**SIDE, "lab": "x", "state": str(tmp_path), "run": str(tmp_path), "dcs": dcs}
    view = dvslook.look(side)
    assert view["answers"], view["error"]
    assert view["dcs"] == {
        "0": {"pid": None, "fault": None, "made": "cd x && ./dc_init a.cfg # of 12"},
        "1": {"pid": None, "fault": "missing", "made": None},
    }


def test_a_node_that_takes_long_to_boot_gets_long_for_its_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    def run(_side: Any, _script: str, _data: Any, timeout: float) -> tuple[int, str, str]:
        waits.append(timeout)
        return 124, "", "no answer"

    monkeypatch.setattr(dvslook, "run_there", run)
    for boot_timeout in (90, 900):
        side = dvssides.sides(lab(1, node={"boot_timeout": boot_timeout}))[1]
        assert dvslook.look(dvssides.light(side))["error"] == "no answer"
        script = side["files"][f"{side['folder']}/dvs-join/run"]
        assert f"pause={3 if boot_timeout == 90 else 22}\n" in script
    assert waits[0] == 20 and waits[-1] == 150
