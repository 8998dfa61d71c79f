"""The lab's ssh keys: one that enters every guest, and a host key for each guest.

``keys state SPEC`` lists what is missing; ``keys make SPEC`` makes just that with ssh-keygen.
``keys read SPEC`` prints what one guest's root gets. SPEC is JSON: {"dir": state_dir/ssh, "lab":
name, "nodes": {"node1": "192.168.1.101"}}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from umlaan.agent.atomic import put, scratch_beside, sweep_all
from umlaan.agent.files import make_folder, write_atomic


def _paths(spec: dict[str, Any]) -> dict[str, str]:
    paths = {"id_ed25519": f"{spec['dir']}/id_ed25519"}
    for node in spec["nodes"]:
        paths[f"host key of {node}"] = f"{spec['dir']}/{node}_host_ed25519_key"
    return paths


def _public(path: str) -> str | None:
    try:
        with open(f"{path}.pub") as file:
            return " ".join(file.read().split()[:2])
    except OSError:
        return None


def _foreign(path: str, lab: str) -> bool:
    """Whether a key that stands there is not one of this lab's, as the comment in it says."""
    if not os.path.lexists(path):
        return False
    try:
        with open(f"{path}.pub") as file:
            said = file.read()
    except OSError:
        try:
            said = _keygen("-y", "-f", path).decode(errors="replace")
        except ValueError:
            return False
    return said.split()[2:] != ["umlaan", lab]


def known_hosts(spec: dict[str, Any]) -> str:
    """Each guest under its name and its address."""
    lines = []
    for node, address in sorted(spec["nodes"].items()):
        public = _public(f"{spec['dir']}/{node}_host_ed25519_key")
        lines.append(f"{node},{address} {public}\n")
    return "".join(lines)


def missing(spec: dict[str, Any]) -> list[str]:
    """Names of what is not there or not whole."""
    lacking = [
        name
        for name, path in _paths(spec).items()
        if _public(path) is None or not os.path.exists(path) or _foreign(path, spec["lab"])
    ]
    try:
        with open(f"{spec['dir']}/known_hosts") as file:
            whole = file.read() == known_hosts(spec)
    except OSError:
        whole = False
    return lacking if whole else [*lacking, "known_hosts"]


def make(spec: dict[str, Any]) -> None:
    """Make what is missing; a private key that lost its public half gets it back."""
    make_folder(spec["dir"], 0o700)
    sweep_all(spec["dir"])
    lacking = missing(spec)
    for name, path in _paths(spec).items():
        if name not in lacking:
            continue
        if _foreign(path, spec["lab"]):
            raise ValueError(f"{path} is not lab {spec['lab']}'s key; move it away")
        if os.path.exists(path):
            try:
                write_atomic(f"{path}.pub", _keygen("-y", "-f", path))
            except ValueError as error:
                raise ValueError(f"{error}; remove {path} to have it made anew") from None
            continue
        # Beside and renamed, the private half first: from that the other can be had again.
        with scratch_beside(path) as made:
            pair = f"{made}/key"
            _keygen("-q", "-t", "ed25519", "-N", "", "-C", f"umlaan {spec['lab']}", "-f", pair)
            put(pair, path)
            put(f"{pair}.pub", f"{path}.pub")
    write_atomic(f"{spec['dir']}/known_hosts", known_hosts(spec).encode())


def _keygen(*words: str) -> bytes:
    """What ssh-keygen prints. ValueError, quoting it, if it fails."""
    done = subprocess.run(
        ["ssh-keygen", *words], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ValueError(f"ssh-keygen {words[-1]}: {said}")
    return done.stdout


def read(spec: dict[str, Any]) -> dict[str, str]:
    """What one guest's root gets: the key that may enter, and its own host key."""
    host_key = f"{spec['dir']}/{spec['node']}_host_ed25519_key"
    found = {}
    for name, path in (
        ("authorised_key", f"{spec['dir']}/id_ed25519.pub"),
        ("host_key", host_key),
        ("host_key_public", f"{host_key}.pub"),
    ):
        with open(path) as file:
            found[name] = file.read()
    found["authorised_key"] = found["authorised_key"].strip()
    return found


def main(argv: list[str]) -> int:
    """The ``keys`` verb."""
    spec = json.loads(argv[1])
    if argv[0] == "make":
        try:
            make(spec)
        except (OSError, ValueError) as error:
            print(f"ssh keys: {error}", file=sys.stderr)
            return 1
    elif argv[0] == "read":
        try:
            print(json.dumps(read(spec)))
        except FileNotFoundError:
            print("null")
    else:
        print(json.dumps(missing(spec)))
    return 0
