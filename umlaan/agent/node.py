"""What each node of a lab host is doing: ``node-state JSON`` answers for many nodes at once.

The request: {"nodes": [{name, dir, umid, root, address, namespace, kernel_dir, dc_file}],
"memory": bool, "reach": seconds}. The answer is {name: row}; state() says what a row holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import sys
from typing import Any

from umlaan.agent import cgroup, dcfile, proc, reach, rootlock, trust
from umlaan.agent.files import read_json, read_short
from umlaan.agent.index import hash_file

Row = dict[str, Any]


def record_path(directory: str) -> str:
    """The launch record of a node's folder."""
    return f"{directory}/launch.json"


def note_path(directory: str) -> str:
    """The order with which a node is started at boot."""
    return f"{directory}/at-boot.json"


def read_record(directory: str) -> Row | None:
    """The launch record, None without one; one of another boot of the lab host has no process."""
    record = read_json(record_path(directory))
    if not isinstance(record, dict):
        return None
    if record.get("boot_id") != proc.boot_id():
        record["pid"] = None
    return record


def running(record: Row | None) -> bool:
    """True if the recorded UML is alive: pid, start time and command line all fit."""
    return bool(
        record
        and record.get("pid")
        and record.get("start")
        and proc.is_same(record["pid"], record["start"], record["argv"])
    )


def members(node: Row) -> list[proc.Process]:
    """Every living process of the node's UML, orphans and helper threads included.

    When a UML is killed, guest processes that it traced run on as processes of the lab host's: they
    may take another name or session and close what they inherited. So four signs count: the
    command line, the root's lock, the recorded session together with the root itself, and the
    cgroup, which a hostile one cannot leave; each only of a process of the node's users, because
    what is found is killed.
    """
    whose = users(node)
    found = {m.pid: m for m in proc.carrying(set(_words_of(node)), whose)}
    # Another lab's node on the same partition is none of ours: the lock says whose it is.
    if (rootlock.holder(node["root"]) or "").startswith(lock_name(node)):
        for one in proc.holding(rootlock.lock_path(node["root"]), whose):
            if not any("umlaan.agent" in word for word in proc.cmdline(one.pid)):
                found[one.pid] = one
    record = read_json(record_path(node["dir"])) or {}
    if record.get("boot_id") == proc.boot_id():
        sessions = {int(record[key]) for key in ("group", "pid") if record.get(key)}
        for one in proc.holding(node["root"], whose, sessions):
            found[one.pid] = one
        for pid in cgroup.pids(record.get("groups") or []):
            there = proc.process(pid)
            if there and not there.dead and proc.user_of(pid) in whose - {0}:
                found[pid] = there
    return list(found.values())


def users(node: Row) -> set[int]:
    """Whose processes a node's UML may consist of: root's, and its user's as its launch said."""
    with contextlib.suppress(OSError):
        # In a folder of root's: only a launch gives it to another user.
        return {0, os.stat(f"{node['dir']}/uml", follow_symlinks=False).st_uid}
    return {0}


def lock_name(node: Row) -> str:
    """What the root's lock says while this node's UML holds it."""
    return f"{node['name']} ({node['dir']})"


def _words_of(node: Row) -> tuple[str, str]:
    return f"umid={node['umid']}", f"uml_dir={node['dir']}/uml/"


def _leader(node: Row, found: list[proc.Process]) -> proc.Process | None:
    """The UML itself, found without a record: the member whose inner pid UML wrote down."""
    try:
        written = int(read_short(f"{node['dir']}/uml/{node['umid']}/pid"))
    except (OSError, ValueError):
        return None
    return next((m for m in found if proc.nspids(m.pid)[-1:] == [written]), None)


def _adopted(record: Row | None, leader: proc.Process) -> Row:
    """A record for a UML that is up without its own: what the process itself tells."""
    record = {**(record or {}), "pid": leader.pid, "start": leader.start}
    record.update(argv=proc.cmdline(leader.pid), adopted=True, exit=None)
    with contextlib.suppress(OSError, KeyError):
        record["user"] = pwd.getpwuid(os.stat(f"/proc/{leader.pid}").st_uid).pw_name
    with contextlib.suppress(OSError):
        record["kernel_sha256"] = hash_file(f"/proc/{leader.pid}/exe")
    return record


def dc_state(path: str | None) -> Row | None:
    """The DC's init behind a DC file: pid and start, or the fault that keeps it from being one."""
    if not path:
        return None
    try:
        pid = dcfile.parse(trust.read(path).decode(errors="replace"))
    except FileNotFoundError:
        return {"pid": None, "start": None, "fault": "missing"}
    except PermissionError as error:
        return {"pid": None, "start": None, "fault": f"not believed: {error.strerror}"}
    except OSError as error:
        return {"pid": None, "start": None, "fault": f"unreadable: {error.strerror}"}
    if pid is None:
        return {"pid": None, "start": None, "fault": "it sets no DC=pid"}
    found = proc.process(pid)
    if found is None or found.dead:
        return {"pid": pid, "start": None, "fault": f"its pid {pid} is not alive"}
    inner = proc.nspids(pid)
    if len(inner) < 2 or inner[-1] != 1:
        fault = f"its pid {pid} is not the init of a PID namespace"
        return {"pid": pid, "start": found.start, "fault": fault}
    return {"pid": pid, "start": found.start, "fault": None}


def memory(record: Row, all_members: list[proc.Process]) -> int:
    """Bytes really used: the guest's memory file once, and what each process has of its own."""
    total = 0
    files: dict[tuple[int, int], int] = {}
    spaces: set[str] = set()
    for member in all_members:
        with contextlib.suppress(OSError):
            # Helper threads share the UML's whole address space: count it once.
            with open(f"/proc/{member.pid}/statm", encoding="ascii") as file:
                space = file.read()
            if space not in spaces:
                spaces.add(space)
                total += _own_bytes(member.pid)
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{record['pid']}/fd"):
            link = f"/proc/{record['pid']}/fd/{name}"
            target = os.readlink(link)
            if target.endswith(" (deleted)"):
                info = os.stat(link)
                files[info.st_dev, info.st_ino] = info.st_blocks * 512
    return total + sum(files.values())


def _own_bytes(pid: int) -> int:
    kilobytes = 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith(("Pss_Anon:", "Pss_File:")):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024


def kernel_state(directory: str | None) -> Row | None:
    """The wanted kernel's stamp; None where it is not built yet."""
    if not directory:
        return None
    stamp = read_json(f"{directory}/stamp.json")
    if not isinstance(stamp, dict) or not os.path.exists(f"{directory}/linux"):
        return None
    return {key: stamp.get(key) for key in ("sha256", "transports", "release", "packed")}


def state(node: Row, with_memory: bool = False) -> Row:
    """One node's row.

    record (of the last launch, or None), running, pid, inner_pid, start, uptime (s), holder (its
    console is kept), leftovers (pids of a dead UML's helpers), shared (its ssh
    connection's socket is there), root_exists, root_id, root_user (who
    else has it), kernel (the wanted one's stamp), dc (the DC's init), memory (bytes), console_log,
    noted (the order with which it is started at boot, or None).
    """
    record = read_record(node["dir"])
    alive = running(record)
    row: Row = {
        "record": record,
        "running": alive,
        "pid": None,
        "start": None,
        "inner_pid": None,
        "uptime": None,
        "holder": False,
        "leftovers": [],
        "memory": None,
        "answers": None,
        "shared": os.path.exists(f"{node['dir']}/ssh"),
        "root_exists": os.path.exists(node["root"]),
        "root_id": root_id(node["root"]),
        "root_user": None,
        "kernel": kernel_state(node.get("kernel_dir")),
        "dc": dc_state(node.get("dc_file")),
        "console_log": f"{node['dir']}/console.log",
        "noted": read_json(note_path(node["dir"])),
    }
    if not alive:
        found = members(node)
        leader = _leader(node, found)
        if leader is not None:
            record = row["record"] = _adopted(record, leader)
            alive = row["running"] = True
        else:
            row["leftovers"] = [m.pid for m in found]
            if row["root_exists"]:
                row["root_user"] = rootlock.holder(node["root"]) or rootlock.used_by(node["root"])
    if alive and record is not None:
        pid = record["pid"]
        row.update(pid=pid, start=record["start"], uptime=round(proc.age(record["start"]), 1))
        row["inner_pid"] = next(reversed(proc.nspids(pid)), None)
        keeper = record.get("holder") or {}
        found_keeper = proc.process(keeper["pid"]) if keeper.get("pid") else None
        row["holder"] = bool(
            found_keeper and not found_keeper.dead and found_keeper.start == keeper.get("start")
        )
        if with_memory:
            row["memory"] = memory(record, members(node))
    return row


def root_id(root: str) -> list[int] | None:
    """Device and inode of a root: another one under the same name is another root."""
    try:
        info = os.stat(root)
    except OSError:
        return None
    return [info.st_dev, info.st_ino]


def states(request: Row) -> dict[str, Row]:
    """The rows of all nodes asked for; where reach is given, whether their sshd answers."""
    rows = {n["name"]: state(n, bool(request.get("memory"))) for n in request["nodes"]}
    if request.get("reach"):
        up = [n for n in request["nodes"] if rows[n["name"]]["running"]]
        answers = reach.answering(up, float(request["reach"]))
        for name, answer in answers.items():
            rows[name]["answers"] = answer
    return rows


def main(argv: list[str]) -> int:
    """The ``node-state`` verb."""
    try:
        rows = states(json.loads(argv[0]))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(rows))
    return 0
