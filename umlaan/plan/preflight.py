"""What a lab needs of its machine, against what the machine is: each lack a line, its remedy in it.

Pure: (lab, lab host, what the agent's probe found) -> lacks, which stop the lab host before
anything is changed, and notes, which do not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from umlaan.model import places
from umlaan.model.base import size_bytes
from umlaan.model.host import LabHost
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.model.toolchain import BuildRoot

_MIB = 1 << 20
_GIB = 1 << 30
# What each thing takes at its largest moment, from runs of the default lab, with room to spare.
KERNEL_BUILD = 3 * _GIB
BUILD_ROOT = 3 * _GIB // 2
BASE_IMAGE = 3 * _GIB // 2
NODE_IMAGE = _GIB // 2
SMALL_THINGS = 256 * _MIB
BUILD_INODES = 150_000
RUN_INODES = 5_000
# A node of the default lab really uses 33 to 78 MiB; builds inside it use more.
NODE_MEMORY = 200 * _MIB
PYTHON = (3, 11)
_ARCHITECTURES = {"x86_64": ("x86_64", "i386"), "i686": ("i386",), "i386": ("i386",)}


@dataclass(frozen=True)
class Report:
    """Lacks stop the lab host; notes are for its user to know."""

    lacks: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def message(self, host: LabHost) -> str:
        """All lacks at once."""
        head = (
            f"preflight: {host.label} ({host.name}) lacks what the lab needs; nothing was changed"
        )
        return "\n".join([head, *(f"  {line}" for line in self.lacks)])


def probe_spec(lab: Lab, host: LabHost) -> str:
    """What the agent's probe is to look at."""
    nodes = lab.nodes_on(host.name)
    return json.dumps(
        {
            "state_dir": host.state_dir,
            "cache_dir": host.cache_dir,
            "namespace": host.network.namespace is not None,
            "pid_namespace": _in_a_dc(lab, host, nodes),
            "lab": host.lab,
            "theirs": sorted({(t.path, t.around) for t in places.theirs(lab, host)}),
            "paths": sorted(_paths(nodes)),
            "memory_folders": sorted({_tmpdir(node) for node in nodes}),
        }
    )


def _tmpdir(node: Node) -> str:
    return node.settings.tmpdir or "/dev/shm"


def _in_a_dc(lab: Lab, host: LabHost, nodes: tuple[Node, ...]) -> bool:
    return lab.host_settings[host.name].dvs is not None and any(
        node.settings.dcid is not None for node in nodes
    )


def _paths(nodes: tuple[Node, ...]) -> dict[str, str]:
    """Paths of the user's that must be on the lab host, with what each is for."""
    found = {}
    for node in nodes:
        if node.root.device:
            found[node.root.device] = f"root of {node.name}"
        for disk in node.settings.disks:
            found[disk] = f"disk of {node.name} (node.disks)"
        if node.settings.hostfs:
            found[node.settings.hostfs] = f"directory of {node.name} (node.hostfs)"
    return found


def judge(lab: Lab, host: LabHost, found: dict[str, Any]) -> Report:
    """Lacks and notes of one lab host."""
    if found.get("python") is None:
        return Report(
            ("python3: there is none; install it: apt-get install --no-install-recommends python3",)
        )
    nodes = lab.nodes_on(host.name)
    lacks = [
        *_rights(found),
        *_system(found, nodes),
        *_space(lab, host, found),
        *_memory(found, nodes),
        *_missing(found, nodes),
        *_not_own(host, found),
        *_folders(lab, host, found, nodes),
    ]
    return Report(tuple(lacks), tuple(_notes(lab, host, found, nodes)))


def _rights(found: dict[str, Any]) -> list[str]:
    if found["uid"] != 0:
        # The rest would only repeat it.
        uid = found["uid"]
        return [f"root: the run has user id {uid}; run it as root, or with pyinfra's --sudo"]
    lines = []
    if found["tun"]:
        lines.append(
            f"/dev/net/tun: {found['tun']}; modprobe tun, or in a container give it the device "
            "(docker run --device /dev/net/tun)"
        )
    if found["unshare"]:
        kinds = ", ".join(found["namespaces"])
        lines.append(
            f"namespaces ({kinds}): {found['unshare']}; in a container it needs CAP_SYS_ADMIN "
            "(docker run --privileged)"
        )
    return lines


def _system(found: dict[str, Any], nodes: tuple[Node, ...]) -> list[str]:
    lines = []
    machine = found["machine"]
    kinds = {node.kernel.subarch for node in nodes if node.kernel.arch == "um"}
    unfit = sorted(kinds - set(_ARCHITECTURES.get(machine, ())))
    if unfit:
        lines.append(
            f"architecture: {machine} does not run a {', '.join(unfit)} UML kernel; "
            "use an x86_64 machine"
        )
    if tuple(found["python"][:2]) < PYTHON:
        have = ".".join(str(part) for part in found["python"])
        need = ".".join(str(part) for part in PYTHON)
        lines.append(f"python3: {have} is there, {need} or newer is needed; use Debian 12 or newer")
    if not found["commands"].get("apt-get"):
        lines.append(
            f"apt-get: there is none on {found['os_name']}; umlaan installs what it needs by apt, "
            "use Debian 12"
        )
    images = [node for node in nodes if not node.root_path.startswith("/dev/")]
    if images and found["loop"] and found["uid"] == 0:
        lines.append(
            f"/dev/loop-control: {found['loop']}; a node's image is mounted by a loop device: "
            "modprobe loop, or in a container docker run --privileged"
        )
    if nodes and not found["ext4"]:
        lines.append("ext4: this kernel cannot mount it; use a kernel with CONFIG_EXT4_FS")
    return lines


def _needs(lab: Lab, host: LabHost, found: dict[str, Any]) -> dict[str, dict[str, int]]:
    """{folder: {what: bytes}} of what is still to be made."""
    nodes = lab.nodes_on(host.name)
    cache: dict[str, int] = {"builds": SMALL_THINGS}
    kernels = {node.kernel.id: node.kernel for node in nodes}
    own = lab.host_settings[host.name].host_kernel
    if own is not None:
        kernels[own.id] = own
    builds = [kernel for kernel in kernels.values() if not kernel.source.ready]
    if lab.builder(host.name):
        builds = []
    if builds and not found["kernels"]:
        cache[f"{len(builds)} kernel build{'s' * (len(builds) > 1)}"] = KERNEL_BUILD * len(builds)
        roots = {k.toolchain for k in builds if isinstance(k.toolchain, BuildRoot)}
        if roots:
            cache["build root"] = BUILD_ROOT * len(roots)
    made = [node for node in nodes if node.root.made]
    if made and not found["bases"]:
        cache["base image"] = BASE_IMAGE
    new = [node for node in made if node.name not in found["nodes"]]
    state = {"logs": SMALL_THINGS}
    if new:
        state[f"{len(new)} node image{'s' * (len(new) > 1)}"] = NODE_IMAGE * len(new)
    return {host.state_dir: state, host.cache_dir: cache}


def _space(lab: Lab, host: LabHost, found: dict[str, Any]) -> list[str]:
    lines = []
    needs = _needs(lab, host, found)
    building = any("kernel" in what or "image" in what for n in needs.values() for what in n)
    by_device: dict[int, list[dict[str, Any]]] = {}
    for disk in found["disks"]:
        by_device.setdefault(disk["device"], []).append(disk)
    for disks in by_device.values():
        disk = disks[0]
        keys = " and ".join(dict.fromkeys(_key(host, each["path"]) for each in disks))
        if disk["read_only"]:
            lines.append(f"space: {disk['mount']} is read-only; set {keys} to another place")
            continue
        parts = {what: n for each in disks for what, n in needs[each["path"]].items()}
        need = sum(parts.values())
        if disk["free"] < need:
            what = ", ".join(f"{name} {human(size)}" for name, size in parts.items())
            lines.append(
                f"space: {disk['mount']} has {human(disk['free'])} free, the lab needs "
                f"{human(need)} there ({what}); free some, or set {keys} to another file system"
            )
        inodes = BUILD_INODES if building else RUN_INODES
        if disk["free_inodes"] is not None and disk["free_inodes"] < inodes:
            lines.append(
                f"inodes: {disk['mount']} has {disk['free_inodes']} free, the lab needs {inodes} "
                f"there; remove small files, or set {keys} to another file system"
            )
    return lines


def _key(host: LabHost, path: str) -> str:
    return "state_dir" if path == host.state_dir else "cache_dir"


def _memory(found: dict[str, Any], nodes: tuple[Node, ...]) -> list[str]:
    lines = []
    for folder in found["memory_folders"]:
        path = folder["path"]
        if not folder["there"]:
            lines.append(
                f"{path}: not there; a node's memory lies in it: mkdir {path} and mount -t tmpfs "
                f"tmpfs {path}, or set node.tmpdir"
            )
            continue
        if folder["noexec"]:
            lines.append(
                f"{path}: mounted noexec, a UML kernel's memory must be executable: "
                f"mount -o remount,exec {path}, or set node.tmpdir"
            )
        here = [node for node in nodes if _tmpdir(node) == path]
        mem = [size_bytes(node.settings.mem) for node in here]
        # All of them as they really are, and any one of them full.
        need = max(sum(min(size, NODE_MEMORY) for size in mem), *mem)
        if folder["size"] < need:
            lines.append(
                f"{path}: {human(folder['size'])} in all, the memory of {len(here)} node"
                f"{'s' * (len(here) > 1)} needs {human(need)} or more: mount -o "
                f"remount,size={need >> 20}m {path} (docker run --shm-size), or set node.tmpdir"
            )
    return lines


def _missing(found: dict[str, Any], nodes: tuple[Node, ...]) -> list[str]:
    paths = _paths(nodes)
    return [
        f"{paths[path]}: {path} is not there; correct it, or make it"
        for path in found["missing_paths"]
    ]


def _folders(lab: Lab, host: LabHost, found: dict[str, Any], nodes: tuple[Node, ...]) -> list[str]:
    """Whose the state folder is, and what of the user's a link or a mount makes a part of it."""
    lines = []
    state = found.get("state") or {"text": "", "real": host.state_dir}
    if state["text"]:
        lines.append(state["text"])
    elif places.is_shared(state["real"]):
        lines.append(
            f"state_dir: {host.state_dir} leads to {state['real']}, which is not the lab's alone; "
            f"set it to a folder of the lab's own, for example {host.state_dir}/umlaan"
        )
    keys = {host.state_dir: "state_dir", host.cache_dir: "cache_dir"}
    for path, folder, how in found.get("clashes", ()):
        named = next((t.key for t in places.theirs(lab, host) if t.path == path), "")
        lines.append(f"{named}: {path} " + places.clash_text(folder, keys[folder], how))
    kinds = found.get("kinds", {})
    for one in dict.fromkeys(places.theirs(lab, host)):
        # What is not there is told by who needs it.
        kind = kinds.get(one.path, "nothing")
        if kind not in (*one.kinds, "nothing"):
            wanted = " or ".join(one.kinds)
            lines.append(f"{one.key}: {one.path} is a {kind}, which is no {wanted}")
    paths = _paths(nodes)
    for one, other in found.get("twice", ()):
        lines.append(f"{paths[other]}: {other} and {one} are one and the same; each needs its own")
    return lines


def _not_own(host: LabHost, found: dict[str, Any]) -> list[str]:
    """Folders into which somebody else could put what root then runs."""
    paths = {"state_dir": host.state_dir, "cache_dir": host.cache_dir}
    return [
        f"{key}: {paths[key]}: {fault}; root runs what lies there, so its whole path must be "
        "root's, and writable for nobody else"
        for key, fault in found.get("not_own", {}).items()
    ]


def _notes(lab: Lab, host: LabHost, found: dict[str, Any], nodes: tuple[Node, ...]) -> list[str]:
    lines = []
    if found["os"] != "debian" or found["os_version"].split(".")[0] not in ("12", "13"):
        lines.append(f"system: umlaan is tried on Debian 12, this is {found['os_name']}")
    for folder in found["memory_folders"]:
        mem = sum(size_bytes(n.settings.mem) for n in nodes if _tmpdir(n) == folder["path"])
        if folder["there"] and mem > folder["size"]:
            lines.append(
                f"memory: the nodes' mem adds up to {human(mem)}, {folder['path']} holds "
                f"{human(folder['size'])}: a node that fills its memory dies; lower node.mem"
            )
    images = sum(size_bytes(n.root.made.size) for n in nodes if n.root.made)
    state = next(disk for disk in found["disks"] if disk["path"] == host.state_dir)
    if images > state["size"]:
        lines.append(
            f"space: the nodes' images may grow to {human(images)}, {state['mount']} has "
            f"{human(state['size'])} in all; lower root.made.size"
        )
    dvs = lab.host_settings[host.name].dvs
    if dvs and "dc_init" in (dvs.programs.dc or "").split("/")[-1].split(" ")[0]:
        wants = "test_dc_init" not in (dvs.programs.dc or "")
        if wants and not found["cgroup_v1_memory"]:
            lines.append(
                "cgroup: dc_init with a memory limit wants cgroup v1's memory controller at "
                "/sys/fs/cgroup/memory, it is not there"
            )
    return lines


def human(size: int) -> str:
    """Bytes as a person reads them: 1.5 GiB, 200 MiB."""
    if size >= _GIB:
        return f"{size / _GIB:.1f} GiB"
    return f"{size // _MIB} MiB"
