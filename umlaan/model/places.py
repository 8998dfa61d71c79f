"""Where the lab's own folders are, and that nothing of its user's lies in them or around them.

Pure: names alone are compared. What a link or a mount makes of them is judged on the lab host, by
``umlaan.agent.mark``, from the same list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import fsencode
from typing import TYPE_CHECKING

from umlaan.model.base import DataError
from umlaan.model.kernel import Kernel

if TYPE_CHECKING:
    from umlaan.model.host import LabHost
    from umlaan.model.lab import Lab, Settings
    from umlaan.model.node import Node

Locate = Callable[[str, str], str]
# Destroy removes log, run, ssh and others in the state folder: these are never umlaan's alone.
_SHARED = re.compile(
    r"/|/(bin|boot|dev|etc|home|lib|lib32|lib64|libx32|media|mnt|opt|proc|root|run|sbin|srv|sys"
    r"|tmp|usr|var)|/(bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|sbin|sys)/.*|/home/[^/]+"
    r"|/usr/(bin|games|include|lib|lib32|lib64|libexec|libx32|local|sbin|share|src)"
    r"|/usr/(bin|lib|lib32|lib64|libexec|libx32|sbin)/.*"
    r"|/var/(backups|cache|lib|local|lock|log|mail|opt|run|spool|tmp)|/run/(lock|netns|systemd|umlaan|user)(/.*)?|/dev/.*"
)
# A unix socket's path has at most 107 bytes; ssh puts 17 of its own behind a new one's.
SOCKET_MAX = 107
_SSH_MORE = 17
# UML's whole command line has 4095 bytes; umlaan's own words, whatever the node, take the rest.
WORDS_MAX = 3000


_TREE = ("directory",)
_TREE_OR_FILE = ("directory", "file")


@dataclass(frozen=True)
class Theirs:
    """One path of the user's: the data's key and host that name it, and what it may be and touch.

    kinds: what it may be, as the agent's preflight calls it. around: True where the lab's folder
    may not lie in it either, because the whole of it is read, copied or shown to a guest.
    """

    host: str
    key: str
    path: str
    around: bool = False
    kinds: tuple[str, ...] = ("file", "device")


def is_shared(path: str) -> bool:
    """True for a folder of the system's, or of all its users: no lab's own."""
    return bool(_SHARED.fullmatch(path))


def is_within(path: str, folder: str) -> bool:
    """True for the folder itself and what lies below it. Both are canonical."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def theirs(lab: Lab, host: LabHost) -> Iterator[Theirs]:
    """Every path of the user's that data names on a lab host; what is built from, where it builds.

    Where another machine builds, its sources stand there.
    """
    settings = lab.host_settings[host.name]
    builds = lab.builder(host.name) is None
    if builds:
        yield from _of_builds(host.name, settings)
    if builds and settings.host_kernel:
        yield from _of_kernel(host.name, "host_kernel", settings.host_kernel)
    for node in lab.nodes_on(host.name):
        yield from _of_node(node)
        if builds:
            yield from _of_kernel(f"@uml/{node.name}", "kernel", node.kernel)
    if host.name == "@local" and settings.measure.ledger.startswith("/"):
        yield Theirs(host.name, "measure.ledger", settings.measure.ledger, kinds=("file",))


def _of_builds(name: str, settings: Settings) -> Iterator[Theirs]:
    if settings.dvs and settings.dvs.source.startswith("/"):
        yield Theirs(name, "dvs.source", settings.dvs.source, True, _TREE_OR_FILE)
    for module in settings.host_modules:
        if module.source.startswith("/"):
            yield Theirs(name, "host_modules.source", module.source, True, _TREE)


def _of_kernel(name: str, key: str, kernel: Kernel) -> Iterator[Theirs]:
    source = kernel.source
    if source.directory:
        kinds = _TREE_OR_FILE if source.ready else _TREE
        yield Theirs(name, f"{key}.source", source.directory, not source.ready, kinds)
    if source.tarball:
        yield Theirs(name, f"{key}.source", source.tarball, kinds=("file",))
    for field, paths, kinds in (
        ("overlays", kernel.overlays, _TREE),
        ("patches", kernel.patches, _TREE_OR_FILE),
        ("beside", tuple(kernel.beside.values()), _TREE),
    ):
        for path in paths:
            yield Theirs(name, f"{key}.{field}", path, True, kinds)


def _of_node(node: Node) -> Iterator[Theirs]:
    name = f"@uml/{node.name}"
    if node.root.device:
        yield Theirs(name, "root", node.root.device)
    for disk in node.settings.disks:
        yield Theirs(name, "node.disks", disk)
    if node.settings.hostfs:
        yield Theirs(name, "node.hostfs", node.settings.hostfs, True, _TREE)
    if node.settings.tmpdir:
        yield Theirs(name, "node.tmpdir", node.settings.tmpdir, kinds=_TREE)


def clash(one: Theirs, folder: str, key: str) -> str | None:
    """Why a path of the user's and a folder of the lab's may not stand as they do; None if so."""
    if is_within(one.path, folder):
        return f"{one.key}: {one.path} {clash_text(folder, key, 'in')}"
    if one.around and is_within(folder, one.path):
        return f"{one.key}: {one.path} {clash_text(folder, key, 'around')}"
    return None


def clash_text(folder: str, key: str, how: str) -> str:
    """What is wrong, and what to do."""
    if how == "in":
        return f"lies in {key} ({folder}), a folder of the lab's own; put it elsewhere"
    return (
        f"holds {key} ({folder}), a folder of the lab's own with its keys, images and builds; set "
        f"{key} to a place outside it"
    )


def check(lab: Lab, locate: Locate) -> None:
    """DataError, a line a fault, for paths that cannot be used or that lie in one another."""
    faults: list[str] = []
    for node in lab.nodes:
        faults += [f"{locate(f'@uml/{node.name}', key)}: {text}" for key, text in _too_long(node)]
    for host in lab.hosts:
        for one in theirs(lab, host):
            for folder, key in ((host.state_dir, "state_dir"), (host.cache_dir, "cache_dir")):
                if text := clash(one, folder, key):
                    faults.append(f"{locate(one.host, one.key.split('.')[0])}: {text}")
    if faults:
        raise DataError("\n".join(dict.fromkeys(faults)))


def _too_long(node: Node) -> Iterator[tuple[str, str]]:
    sockets = {
        f"{node.uml_dir}/{node.umid}/mconsole": 0,
        f"{node.dir}/ssh": _SSH_MORE,
    }
    path, more = max(sockets.items(), key=lambda row: len(fsencode(row[0])) + row[1])
    size = len(fsencode(path)) + more
    if size > SOCKET_MAX:
        yield (
            "state_dir",
            f"state_dir: {path} is too long for a socket ({size} of {SOCKET_MAX} bytes); "
            "choose a shorter state_dir",
        )
    settings = node.settings
    words = [*settings.extra_args, *settings.disks, settings.hostfs or "", node.root_path]
    size = sum(len(fsencode(word)) + 1 for word in words)
    if size > WORDS_MAX:
        yield (
            "node",
            f"node.extra_args, node.disks: {size} bytes, the kernel's command line has room for "
            f"{WORDS_MAX}",
        )
