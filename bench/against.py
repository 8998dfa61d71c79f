"""Ansible on the same lab: a virtual environment of its own, the playbook, its variables."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from bench.lab import REPO, BenchLab
from bench.timing import Failed, Timed, say, timed
from umlaan.plan import dvs as dvs_plan
from umlaan.plan import dvssides, guestmodules
from umlaan.plan import guest as guest_plan
from umlaan.plan.node import command_line
from umlaan.plan.toolchain import packages

PLAYBOOK = REPO / "bench/playbook.yml"
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


def environment(folder: Path) -> Path:
    """ansible-core in a virtual environment; its ansible-playbook."""
    program = folder / "ansible/bin/ansible-playbook"
    if not program.exists():
        say("ansible-core from PyPI, in a virtual environment of its own")
        timed([sys.executable, "-m", "venv", str(folder / "ansible")])
        pip = str(folder / "ansible/bin/pip")
        timed([pip, "install", "-q", "--no-input", "--no-cache-dir", "ansible-core"])
    return program


class Ansible:
    """The playbook for one lab that is up."""

    def __init__(self, lab: BenchLab, program: Path) -> None:
        self.lab, self.program = lab, program
        self.folder = lab.folder / "playbook"
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        self.written = 0
        (self.folder / "vars.json").write_text(json.dumps(self.variables(), indent=1))
        self.inventory()

    def inventory(self) -> None:
        """node0 is this machine, node1 the guest, entered through the lab's namespace."""
        node, keys = self.lab.node(), self.lab.folder / "state/ssh"
        ssh = self.folder / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec ip netns exec {node.network.namespace} ssh "$@"\n')
        ssh.chmod(0o755)
        options = f"-F none -o UserKnownHostsFile={keys}/known_hosts -o ControlMaster=auto"
        options += f" -o ControlPersist=600 -o ControlPath={self.lab.folder}/a"
        python = "ansible_python_interpreter=/usr/bin/python3"
        guest = f"node1 ansible_host={node.address} ansible_user=root {python}"
        guest += f" ansible_ssh_executable={ssh} ansible_ssh_private_key_file={keys}/id_ed25519"
        guest += f" ansible_ssh_common_args='{options}'"
        lines = [f"node0 ansible_connection=local {python}", guest]
        (self.folder / "hosts.ini").write_text("\n".join(lines) + "\n")

    def keep(self, text: str) -> str:
        """A file's wanted content, beside the playbook."""
        self.written += 1
        path = self.folder / f"file{self.written}"
        path.write_text(text)
        return str(path)

    def row(self, path: str, text: str, mode: int) -> dict[str, str]:
        """One file for the module copy."""
        return {"src": self.keep(text), "dest": path, "mode": f"{mode:04o}"}

    def variables(self) -> dict[str, Any]:
        """What the playbook names, from the model and from what the lab has built."""
        model, node, state = self.lab.model(), self.lab.node(), self.lab.folder / "state"
        network, tree = node.network, model.settings("@local").dvs
        assert tree is not None
        host, guest = dvssides.sides(model)[0], dvssides.sides(model)[1]
        keys = state / "ssh"
        host_key = keys / "node1_host_ed25519_key"
        secrets = self.lab.secrets()
        given = guest_plan.values(model, node, "eth0", secrets)
        hosts_file = f"/etc/netns/{network.namespace}/hosts"
        built = [Path(node.kernel_path), Path(node.kernel_dir) / "config", state / "dvs/dvs.tar.gz"]
        built += files_below(state / "dvs/ioctl") + files_below(state / "dvs/ipc")
        ipc, source = state / "dvs/ipc", self.lab.repo / tree.source
        stamp = json.loads((Path(node.kernel_dir) / "stamp.json").read_text())
        return {
            "packages": [p.partition(" ")[0] for p in packages(model, "@local")],
            "state_dir": str(state),
            "sums_host": self.keep(sums(built, state)),
            "dvs_source": str(source),
            "sums_source": self.keep(sums(files_below(source), source)),
            "makes": makes(dvs_plan.spec(tree, model.hosts[0], str(source)), state / "dvs"),
            "host_up": f"{host['folder']}/up",
            "root": node.root_path,
            "keys": [str(keys / "id_ed25519"), str(host_key)],
            "namespace": network.namespace,
            "bridge_name": network.bridge,
            "address": str(network.address.ip),
            "tap_name": node.tap,
            "node0_link": network.node0_link,
            "node0_address": str(network.node_address(0)),
            "node_address": str(node.address),
            "hosts_file": hosts_file,
            "hosts_copy": self.keep(Path(hosts_file).read_text()),
            "host_files": [
                self.row(path, text, 0o755) for path, text in dvssides.files_of(host, "own").items()
            ],
            "dc_file": tree.programs.dc_file_on_host(str(state), 0),
            "supervisor": f"{host['folder']}",
            "proxy": "tcp_proxy",
            "command_line": " ".join(command_line(node, "tuntap")),
            "dvs_state": host["state"],
            "guest_files": [
                self.row(f"/{file.path}", file.text, file.mode)
                for file in guest_plan.made_files(given, secrets)
            ],
            "dvs_dest": tree.dest,
            "sums_guest": self.keep(sums(files_below(ipc), ipc)),
            "guest_scripts": [
                self.row(path, text, 0o755)
                for path, text in dvssides.files_of(guest, "runit").items()
            ],
            "guest_services": guest["services"],
            "modules_script": f"cd /; {guestmodules.script()}",
            "modules_sizes": (stamp.get("packed") or {}).get("sizes", ""),
            "guest_state": guest["state"],
        }

    def run(self) -> Timed:
        """The playbook once; all tasks ok. Failed where one is not."""
        words = [str(self.program), "-i", str(self.folder / "hosts.ini")]
        words += ["-e", f"@{self.folder}/vars.json", str(PLAYBOOK)]
        home = str(self.folder / "home")
        env = {"ANSIBLE_PIPELINING": "1", "HOME": home, "ANSIBLE_LOCAL_TEMP": f"{home}/tmp"}
        return timed(words, self.folder, {**env, "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]})

    def settled(self) -> Timed:
        """A run that changed nothing. Failed where it did: then it declares something else."""
        done = self.run()
        rows = _RECAP.findall(done.output)
        if len(rows) != 2 or any(int(row[2]) for row in rows):
            raise Failed(f"the playbook changes what umlaan left as it is: {rows}")
        return done


def tasks(done: Timed) -> int:
    """How many tasks a run went through, loops counted once."""
    return sum(int(row[1]) for row in _RECAP.findall(done.output))


def makes(spec: dict[str, Any], home: Path) -> list[str]:
    """The words of each make, for both variants."""
    return [
        shlex.join(["-s", "-C", f"{home}/{variant}/{step['dir']}"])
        + "".join(f" {name}={shlex.quote(value)}" for name, value in step["variables"].items())
        for variant, steps in spec["variants"].items()
        for step in steps
    ]


def files_below(folder: Path) -> list[Path]:
    """All files of a tree."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def sums(paths: list[Path], below: Path) -> str:
    """What sha256sum -c reads."""
    rows = []
    for path in paths:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(f"{digest}  {path.relative_to(below)}\n")
    return "".join(rows)
