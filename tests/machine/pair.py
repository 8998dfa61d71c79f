"""The procedure's pair in the machine: its DVS with a DC, and a UML on /dev/sdb6 inside that."""

from __future__ import annotations

import re
import runpy
import shlex
import time
from typing import Any

from tests.machine.lab import REPOSITORY, Lab
from umlaan.agent import dvstables

NODE = "@uml/node1"
STATE = "/var/lib/umlaan/pair"
UNIT = "umlaan-pair-nodes.service"
UNITS = [
    f"umlaan-pair-{name}.service" for name in ("dvs-join", "dvs-proxy-node1", "dvs-up", "nodes")
]
DVS: dict[str, Any] = runpy.run_path(str(REPOSITORY / "group_data/all.py"))["dvs"]
# The procedure's own way: the host's root namespace, a partition of the user's as the root.
DATA: dict[str, Any] = {
    "lab": "pair",
    "network": {"namespace": None},
    "root": "/dev/sdb6",
    "node": {"mem": "192M"},
    "kernel": "ready:package:user-mode-linux",
    "dvs": DVS,
}


def inside(lab: Lab, command: str) -> str:
    """A command in the guest, by the lab's own key and connection; the lab host's view of it."""
    words = ["ssh", "-F", "none", "-i", f"{STATE}/ssh/id_ed25519", "-o", "BatchMode=yes"]
    words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    words += ["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=120", "-o", "ControlMaster=auto"]
    words += ["-o", f"ControlPath={STATE}/nodes/node1/ssh", "-o", "ControlPersist=600"]
    line = f"{shlex.join([*words, 'root@192.168.1.101', command])} 2>/dev/null"
    deadline = time.monotonic() + 300
    while True:
        done = lab.machine.ssh(line, check=False, timeout=300)
        if not done.returncode:
            return done.stdout.strip()
        # A guest that the unit has just started has a while to go to its sshd.
        assert done.returncode == 255 and time.monotonic() < deadline, (
            f"{command}: {done.returncode}"
        )
        time.sleep(0.3)


def uml_pid(lab: Lab) -> str:
    """The pid in node1's launch record, of a process that is there."""
    script = (
        "import json, sys; from umlaan.agent import node; "
        f"r = node.read_record('{STATE}/nodes/node1'); print(r['pid'] if node.running(r) else '')"
    )
    return lab.machine.out(
        f"PYTHONPATH=$(ls {STATE}/at-boot/*.zip) python3 -S -c {shlex.quote(script)}"
    )


def dc_pid(lab: Lab) -> str:
    """The init of DC0, as its file names it; empty if that is no process of this boot's."""
    return lab.machine.out(f". {STATE}/run/DC0.sh && [ -e /proc/$DC0 ] && echo $DC0 || true")


def pids(lab: Lab) -> list[str]:
    """Everything of the lab that runs on the machine: the DC's init, the UML, each service's."""
    shown = f"systemctl show --value -p MainPID {' '.join(UNITS[:2])}"
    return [dc_pid(lab), uml_pid(lab), *lab.machine.out(shown).split()]


def unjoined(lab: Lab) -> list[str]:
    """What each side's own tables lack of a joined pair."""
    out = []
    for number, folder in ((0, f"{STATE}/run/dvs"), (1, "/run/sample-dvs")):
        # Where one is not there yet, the other is the only one said.
        command = f"cd {folder} && tail -n +1 nodes proxies/info || true"
        said = inside(lab, command) if number else lab.machine.out(command)
        files = dict(re.findall(r"==> (\S+) <==\n(.*?)(?=\n==> |\Z)", said, re.DOTALL))
        faults = dvstables.unjoined(files, 1 - number, [0])
        out += [f"node{number}: {fault}" for fault in faults]
    return out


def inside_its_dc(lab: Lab) -> bool:
    """Whether the UML's PID namespace is the DC's, and not the machine's."""
    names = " ".join(f"/proc/{pid}/ns/pid" for pid in (uml_pid(lab), dc_pid(lab), "1"))
    uml, dc, machine = lab.machine.out(f"readlink {names}").split()
    return uml == dc != machine


def wait_until_joined(lab: Lab) -> None:
    """By itself: no run has a hand in it."""
    deadline = time.monotonic() + 300
    while faults := unjoined(lab):
        assert time.monotonic() < deadline, f"{faults}\n{journal(lab)}"
        time.sleep(0.5)


def wait_until_launched(lab: Lab) -> str:
    """The pid of a UML that the machine's own units brought up."""
    deadline = time.monotonic() + 300
    while not (uml := uml_pid(lab)):
        assert time.monotonic() < deadline, journal(lab)
        time.sleep(0.5)
    return uml


def end(lab: Lab) -> str:
    """The last that the boot before this one, and its kernel, said."""
    journal = lab.machine.out("journalctl -b -1 -q --no-pager -o short-precise -n 80 || true")
    return f"{journal}\n{lab.machine.tail(60)}"


def journal(lab: Lab) -> str:
    """What the lab's units said in this boot."""
    return lab.machine.out(f"journalctl -b {' '.join(f'-u {name}' for name in UNITS)}")
