"""From pyinfra's inventory and data to the model, with the place of every fault.

Floor: above the model, below facts. deploy.py, the connector and the command read the lab here.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umlaan.model.base import DataError
from umlaan.model.lab import HostData, Lab, build_lab

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

# Keys that belong to pyinfra's own connectors and arguments, not to the lab.
_FOREIGN = ("ssh_", "fake_", "_", "docker_", "chroot_", "uml_connector_")


def is_uml(host: Host) -> bool:
    """True for an @uml/… host."""
    return bool(host.name.startswith("@uml/"))


def is_builder(host: Host) -> bool:
    """True for a machine that only builds for others: one of the inventory's group builder."""
    return "builder" in host.groups


def is_lab_host(host: Host) -> bool:
    """True for a machine that carries nodes: no node itself, and not only a builder."""
    return not is_uml(host) and not is_builder(host)


def own_data(host: Host) -> dict[str, Any]:
    """The host's data without what is pyinfra's own, in pyinfra's order of precedence."""
    data: dict[str, Any] = host.data.dict()
    return {k: v for k, v in data.items() if not k.startswith(_FOREIGN)}


def load(state: State) -> Lab:
    """The lab of this run, built once from the whole inventory; --limit does not narrow it.

    DataError with one line a fault: file and line, key, what is allowed, what was given.
    """
    loaded = getattr(state, "umlaan_lab", None)
    if isinstance(loaded, Lab):
        return loaded
    override = state.inventory.get_override_data()
    if "node_count" in override:
        raise DataError(
            "--data node_count: inventory.py is read before --data and cannot see it; "
            "set node_count in inventory.py"
        )
    hosts = list(state.inventory)
    rows = [HostData(h.name, is_uml(h), own_data(h), is_builder(h)) for h in hosts]
    by_name = {h.name: h for h in hosts}

    def locate(host: str, key: str) -> str:
        return place_of(by_name[host], key) if host in by_name else "inventory.py"

    lab = build_lab(rows, locate)
    state.umlaan_lab = lab  # type: ignore[attr-defined]
    return lab


def place_of(host: Host, key: str) -> str:
    """Where a key of a host's data stands: --data, inventory.py, or file and line in group_data."""
    inventory = host.inventory
    if _has(inventory.get_override_data(), key):
        return "--data"
    if _has(inventory.get_host_data(host.name), key):
        return f"inventory.py, host {host.name}"
    bases = [folder / "group_data" for folder in (*_inventorys_own(), Path())]
    for group in [*reversed(list(host.groups)), "all"]:
        for path in [b / f"{group}{end}" for b in bases for end in (".py", ".local.py")]:
            line = _line_of(path, key)
            if line:
                return f"{path}:{line}"
    return f"data of {host.name}"


def _inventorys_own() -> list[Path]:
    """The folder of the inventory that the command line names: its group_data is laid over ours.

    pyinfra keeps no record of where a value came from.
    """
    words = (Path(word) for word in sys.argv[1:] if word.endswith(".py"))
    return [path.parent for path in words if path.is_file()][:1]


def _has(data: dict[str, Any], key: str) -> bool:
    return any(k == key or k.startswith(f"{key}.") for k in data)


def _line_of(path: Path, key: str) -> int | None:
    try:
        tree = ast.parse(path.read_text())
    except (OSError, SyntaxError):
        return None
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(t, ast.Name) and t.id == key for t in targets):
            return node.lineno
    return None
