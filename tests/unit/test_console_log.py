"""A node's console log: full disks, its turning over, its last lines."""

from __future__ import annotations

import os
from pathlib import Path

from umlaan.agent import start
from umlaan.agent.holder import ConsoleLog


def test_a_full_log_loses_lines_and_says_so(tmp_path: Path) -> None:
    log = ConsoleLog("/dev/full")
    log.write(b"lost\r\n")
    assert log.lost == 6
    log.descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log.write(b"kept\r\n")
    text = (tmp_path / "log").read_text()
    assert "6 bytes of console lost" in text
    assert text.endswith("kept\n")


def test_a_long_log_is_turned_over(tmp_path: Path) -> None:
    log = ConsoleLog(str(tmp_path / "log"), limit=100)
    for number in range(30):
        log.write(f"line {number}\n".encode())
    assert (tmp_path / "log").stat().st_size < 110
    assert "line 29" in (tmp_path / "log").read_text() + (tmp_path / "log.1").read_text()


def test_the_last_lines_keep_the_panic(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("Kernel panic - not syncing: why\r\n" + "trace\r\n" * 30)
    lines = start.last_lines(str(path))
    assert lines[0] == "Kernel panic - not syncing: why"
    assert len(lines) == 16
