"""What a UML that died leaves behind is known for what it is, and ended; on a stand-in."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.uml import FAKE, agent, state_of, typed, typed_last, until
from umlaan.agent import node, proc, rootlock, start

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="locks roots under /run")


def killed_with_its_holder(order: dict[str, Any]) -> None:
    """A UML with one process of a guest, gone together with what would have cleaned up."""
    agent("node-start", order)
    typed(order, "child")
    until(lambda: len(node.members(order)) == 2)
    record = node.read_record(order["dir"])
    assert record is not None
    os.kill(record["holder"]["pid"], signal.SIGKILL)
    os.kill(record["pid"], signal.SIGKILL)
    until(lambda: not state_of(order)["running"])


def test_killed_with_its_holder_it_leaves_nothing_to_the_next(order: dict[str, Any]) -> None:
    killed_with_its_holder(order)
    row = state_of(order)
    assert len(row["leftovers"]) == 1
    assert "node9" in row["root_user"]
    done = agent("node-start", order)
    assert done.returncode == 0, done.stderr
    assert "1 processes of its last run ended" in done.stdout
    assert proc.process(row["leftovers"][0]) is None or proc.process(row["leftovers"][0]).dead  # type: ignore[union-attr]


def test_another_labs_node_on_the_same_root_is_not_ours(
    order: dict[str, Any], tmp_path: Path
) -> None:
    agent("node-start", order)
    theirs = {m.pid for m in node.members(order)}
    other = {**order, "dir": str(tmp_path / "other"), "argv": [sys.executable, FAKE, "umid=node9"]}
    assert node.members(other) == []
    done = agent("node-start", other)
    assert done.returncode == start.BUSY
    assert f"is held by node9 ({order['dir']})" in done.stderr
    assert agent("node-stop", other).stdout == "node9: down already\n"
    assert {m.pid for m in node.members(order)} == theirs


def test_a_chroot_ends_what_a_dead_uml_left(order: dict[str, Any]) -> None:
    killed_with_its_holder(order)
    done = agent("root-run", "--root", order["root"], "--dir", order["dir"], "--", "true")
    # The stand-in's root is no file system: that far it came.
    assert "wrong fs type" in done.stderr
    assert node.members(order) == []


def test_the_holder_ends_what_a_killed_uml_leaves(order: dict[str, Any]) -> None:
    agent("node-start", order)
    typed(order, "child")
    until(lambda: len(node.members(order)) == 2)
    os.kill(state_of(order)["pid"], signal.SIGKILL)
    until(lambda: not node.members(order))
    until(lambda: rootlock.holder(order["root"]) is None)
    assert state_of(order)["record"]["exit"]["code"] == -9


def test_a_uml_without_its_record_is_found(order: dict[str, Any]) -> None:
    agent("node-start", order)
    pid = state_of(order)["pid"]
    os.unlink(node.record_path(order["dir"]))
    os.makedirs(f"{order['dir']}/uml/node9", exist_ok=True)
    Path(order["dir"], "uml/node9/pid").write_text(f"{pid}\n")
    row = state_of(order)
    assert (row["running"], row["pid"], row["record"]["adopted"]) == (True, pid, True)
    # Who waits for it does not take it for one that went down.
    done = agent("node-wait", {**order, "address": "127.9.9.9"})
    assert "is up but ssh on 127.9.9.9 does not answer" in done.stderr


def test_one_that_cannot_be_noted_for_the_next_boot_is_started_all_the_same(
    order: dict[str, Any],
) -> None:
    Path(order["dir"], "at-boot.json").mkdir()
    done = agent("node-start", order)
    assert done.returncode == 0
    assert done.stdout.startswith("node9: started, pid ")
    assert "node9: not noted for the next boot: " in done.stderr


def test_a_recycled_pid_is_not_the_node(order: dict[str, Any]) -> None:
    agent("node-start", order)
    typed_last(order, "exit 0")
    until(lambda: (node.read_record(order["dir"]) or {}).get("exit"))
    me = proc.process(os.getpid())
    assert me is not None
    record = {**json.loads(Path(order["dir"], "launch.json").read_text()), "pid": me.pid}
    record["start"] = me.start
    Path(order["dir"], "launch.json").write_text(json.dumps(record))
    assert not state_of(order)["running"]


def test_a_record_of_another_boot_has_no_process(order: dict[str, Any]) -> None:
    agent("node-start", order)
    record = {**json.loads(Path(order["dir"], "launch.json").read_text()), "boot_id": "other"}
    Path(order["dir"], "launch.json").write_text(json.dumps(record))
    found = node.read_record(order["dir"])
    assert found is not None
    assert found["pid"] is None
