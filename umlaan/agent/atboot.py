"""What brings a lab's nodes back after a boot of their lab host, where that has systemd.

Each start leaves its order in the node's folder; a stop that is meant to last takes it away.
``at-boot up LAB STATE_DIR`` starts what was noted before this boot, ``down`` stops all nodes so
that ``up`` starts them again: both are the lab's unit's. ``note ORDER`` notes a node that is up;
``place FILE`` puts this agent beside the lab's state, where the unit finds it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from umlaan.agent import cgroup, itself, node, proc
from umlaan.agent.files import (
    fault_of,
    locked,
    make_folder,
    read_json,
    run_folder,
    write_atomic,
    write_json,
)
from umlaan.agent.patience import Wait

SYSTEMD = "/run/systemd/system"
WANTS = "/etc/systemd/system/multi-user.target.wants"
ROOTS_S = 30.0
STOP_S = (60.0, 150.0)
BOOT_S = 180.0
# Nodes that boot at once for each core of the machine.
PER_CORE = 2
SCOPED = "UMLAAN_SCOPED"


def unit(lab: str) -> str:
    """The unit that starts a lab's nodes at boot."""
    return f"umlaan-{lab}-nodes.service"


def done_path(lab: str) -> str:
    """There once the unit has done its work in this boot."""
    return f"/run/umlaan/{lab}.at-boot"


def lock_path(lab: str) -> str:
    """The lab's lock: one run, or one boot, at a time."""
    return f"/run/umlaan/{lab}.lock"


def note(order: dict[str, Any]) -> None:
    """Have this node started at the next boot, too."""
    path = node.note_path(order["dir"])
    if read_json(path) != order:
        write_json(path, order)


def forget(directory: str) -> None:
    """Leave this node down at the next boot."""
    if os.path.exists(node.note_path(directory)):
        os.unlink(node.note_path(directory))


def noted(state_dir: str) -> list[dict[str, Any]]:
    """The orders of all nodes that are to be up, by their number."""
    folder = f"{state_dir}/nodes"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = [
        read_json(node.note_path(f"{folder}/{name}")) for name in sorted(names, key=_by_number)
    ]
    return [order for order in found if isinstance(order, dict)]


def _by_number(name: str) -> tuple[int, str]:
    digits = re.sub(r"\D", "", name)
    return int(digits or 0), name


def due(order: dict[str, Any]) -> bool:
    """True for a node that was up before this boot; what ended within it is a run's to judge."""
    record = read_json(node.record_path(order["dir"]))
    if not isinstance(record, dict):
        return False
    return bool(record.get("boot_id") != proc.boot_id() or record.get("resume"))


def await_roots(orders: list[dict[str, Any]], seconds: float) -> None:
    """Wait for disks that the kernel has not found yet; node-start says what is missing."""
    waiting = Wait(seconds)
    while missing := frozenset(o["root"] for o in orders if not os.path.exists(o["root"])):
        if not waiting.goes_on(missing):
            return
        waiting.pause(most=0.2)


def agent_words(verb: str, order: dict[str, Any]) -> list[str]:
    """This agent again, in a process of its own."""
    return itself(verb, json.dumps(order, sort_keys=True))


def up(lab: str, state_dir: str) -> None:
    """Start every node that is due, in order; each says for itself what kept it down."""
    try:
        with locked(lock_path(lab), f"at boot: {unit(lab)}"):
            orders = [order for order in noted(state_dir) if due(order)]
            await_roots(orders, ROOTS_S)
            # As many boot at once as the machine can carry.
            places = PER_CORE * (os.cpu_count() or 1)
            with ThreadPoolExecutor(places) as pool:
                for order in orders:
                    pool.submit(_started, order, wait=len(orders) > places)
    except TimeoutError as error:
        # A run starts what is to be up by itself; systemctl enable --now comes from within one.
        print(f"nothing started: {error}", flush=True)
    run_folder()
    write_atomic(done_path(lab), f"{unit(lab)}\n".encode())


def _started(order: dict[str, Any], *, wait: bool) -> None:
    """Start a node; with wait the next one has its turn when it is up, or was given up."""
    done = subprocess.run(agent_words("node-start", order), check=False)
    if done.returncode == 0 and wait:
        subprocess.run(agent_words("node-wait", order), check=False)


def stop_s(order: dict[str, Any]) -> float:
    """What a clean end may take: longer where the boot may, but less than the unit's own limit."""
    least, most = STOP_S
    return min(most, max(least, float(order.get("deadline") or 0) / 6))


def down(lab: str, state_dir: str) -> None:
    """Stop every node that runs, all at once and cleanly; ``up`` starts them again."""
    folder = f"{state_dir}/nodes"
    asked = []
    for order in noted(state_dir):
        record = node.read_record(f"{folder}/{order['name']}")
        if record and node.running(record):
            words = agent_words("node-stop", {**order, "deadline": stop_s(order), "resume": True})
            asked.append(subprocess.Popen(words))
    for process in asked:
        process.wait()
    if os.path.exists(done_path(lab)):
        os.unlink(done_path(lab))


def top() -> str:
    """Where this agent runs from: a folder, or one zip file."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@functools.cache
def key() -> str:
    """Names the content of an agent that runs from a folder."""
    digest = hashlib.sha256()
    for name, data in sources(top()):
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def place(path: str) -> None:
    """Put the agent, as one zip, at a path; the ones before go."""
    folder, own = os.path.dirname(path), top()
    make_folder(folder, 0o700)
    if os.path.isfile(own):
        with open(own, "rb") as file:
            write_atomic(path, file.read())
    else:
        write_atomic(path, packed(own))
    for name in os.listdir(folder):
        if name.endswith(".zip") and name != os.path.basename(path):
            os.unlink(f"{folder}/{name}")


def sources(folder: str) -> Iterator[tuple[str, bytes]]:
    """(name in the zip, content) of the agent's files below a folder."""
    agent = sorted(name for name in os.listdir(f"{folder}/umlaan/agent") if name.endswith(".py"))
    for name in ("umlaan/__init__.py", *(f"umlaan/agent/{name}" for name in agent)):
        with open(f"{folder}/{name}", "rb") as file:
            yield name, file.read()


def packed(folder: str) -> bytes:
    """The agent below a folder as one zip file, the same bytes for the same content."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sources(folder):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def awaited(lab: str, seconds: float = BOOT_S) -> None:
    """Within a boot: wait until the lab's unit has started what was up, so that a run finds it."""
    waiting = Wait(seconds)
    said = False
    while (
        os.path.isdir(SYSTEMD)
        and os.path.lexists(f"{WANTS}/{unit(lab)}")
        and not os.path.exists(done_path(lab))
        and (jobs := _starting()) is not None
        and waiting.goes_on(jobs)
    ):
        if not said:
            said = True
            print(f"umlaan: waits for {unit(lab)}, the machine is starting", file=sys.stderr)
        waiting.pause(least=1.0)


def _starting() -> str | None:
    """What systemd has still to do, while the machine is starting; None once it has started."""
    if _systemctl("is-system-running") not in ("initializing", "starting"):
        return None
    return _systemctl("list-jobs", "--no-legend")


def _systemctl(*words: str) -> str:
    command = ["systemctl", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout.strip()


def in_scope(order: dict[str, Any], words: list[str]) -> int | None:
    """Run words in a scope of systemd's that ends after the lab's unit; None where there is none.

    In the scope of an ssh session a node would be killed beside its clean stop when the machine
    goes down.
    """
    if not (order.get("lab") and os.path.isdir(SYSTEMD) and shutil.which("systemd-run")):
        return None
    scope = f"umlaan-{order['lab']}-{order['name']}-{os.getpid()}.scope"
    reader, writer = os.pipe()
    process = subprocess.Popen(
        ["systemd-run", "--quiet", "--scope", "--collect", f"--unit={scope}"]
        + [f"--property=Before={unit(order['lab'])}", *cgroup.properties(order), "--", *words],
        stderr=subprocess.PIPE,
        pass_fds=[writer],
        env={**os.environ, SCOPED: str(writer)},
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        began = bool(file.read(1))
    assert process.stderr is not None
    errors = process.stderr.read()
    code = process.wait()
    if not began:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
        print(
            f"{order['name']}: not in a scope of its own, systemd-run: {last[0]}; when the machine "
            "goes down it is killed with the session that started it",
            flush=True,
        )
        return None
    sys.stderr.buffer.write(errors)
    return code


def scoped() -> bool:
    """True in a process that ``in_scope`` started; its parent is told that it began."""
    word = os.environ.pop(SCOPED, None)
    if word is None:
        return False
    os.write(int(word), b"1")
    os.close(int(word))
    return True


def main(argv: list[str]) -> int:
    """The ``at-boot`` verb."""
    verb, *rest = argv
    try:
        if verb == "note":
            note(json.loads(rest[0]))
        elif verb == "place":
            place(rest[0])
        else:
            {"up": up, "down": down}[verb](*rest)
    except OSError as error:
        print(fault_of(error, "at-boot"), file=sys.stderr)
        return 1
    return 0
