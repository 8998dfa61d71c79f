"""The sides of a lab's DVS: every node that takes part, its scripts, its peers, how to reach it."""

from __future__ import annotations

import hashlib
import re
import shlex
from typing import Any

from umlaan.agent import dcfile, sysvinit
from umlaan.model.dvs import GUEST_RUN, Dvs, Programs, host_run, host_tree
from umlaan.model.host import LabHost
from umlaan.model.lab import Lab
from umlaan.model.node import Node
from umlaan.plan.access import ssh_words
from umlaan.plan.templates import render

Side = dict[str, Any]
GUEST_FOLDER = "/etc/umlaan/dvs"


def hub(lab: Lab) -> int:
    """The node that short tests are made with: the lowest number, node0 where there is one."""
    return min(number for number, _ in _everyone(lab))


def _everyone(lab: Lab) -> list[tuple[int, LabHost | Node]]:
    rows: list[tuple[int, LabHost | Node]] = [
        (host.number, host) for host in lab.hosts if host.number is not None
    ]
    rows += [(node.number, node) for node in lab.nodes]
    return sorted(rows, key=lambda row: row[0])


def _dcids(lab: Lab, one: LabHost | Node) -> set[int]:
    """The DCs of a side: a node's own, and on a lab host those of all nodes it carries."""
    if isinstance(one, Node):
        return set() if one.settings.dcid is None else {one.settings.dcid}
    own = lab.host_settings[one.name].node.dcid
    return {d for n in lab.nodes if (d := n.settings.dcid) is not None} or (
        set() if own is None else {own}
    )


def sides(lab: Lab) -> dict[int, Side]:
    """Every side of the lab by its node's number; empty where the lab has no DVS."""
    out = {}
    for number, one in _everyone(lab):
        name = one.name if isinstance(one, LabHost) else f"@uml/{one.name}"
        dvs = lab.settings(name).dvs
        if dvs is not None:
            out[number] = _Maker(lab, dvs, one, number).side()
    return out


def former(lab: Lab, name: str) -> Side | None:
    """The side that a lab host would be if it ran a DVS; None where it does, or has no tree.

    For what stands there since it did: its number, if it had another one, is not known any more.
    """
    host, dvs = lab.host(name), lab.settings(name).dvs
    if host.number is not None or dvs is None:
        return None
    number = lab.host_settings[name].number or 0
    return _Maker(lab, dvs, host.model_copy(update={"number": number}), number).side()


class _Maker:
    """Fills the templates of one side in."""

    def __init__(self, lab: Lab, dvs: Dvs, one: LabHost | Node, number: int) -> None:
        self.lab, self.dvs, self.one, self.number = lab, dvs, one, number
        self.programs: Programs = dvs.programs
        self.network = one.network
        own = one.network.node_address(number) if isinstance(one, LabHost) else one.address
        self.address = str(own)
        self.dcids = sorted(_dcids(lab, one)) if dvs.programs.dc is not None else []
        if isinstance(one, LabHost):
            self.run, self.tree = host_run(one.state_dir), host_tree(one.state_dir)
            self.state = self.programs.state_on_host(one.state_dir)
            self.folder = f"{one.state_dir}/services"
            self.name = one.label
            self.log = one.log_dir
        else:
            self.run, self.tree, self.state = GUEST_RUN, dvs.dest, self.programs.state
            self.folder, self.name, self.log = GUEST_FOLDER, one.name, "/var/log"
        self.configs = {dcid: self._config(dcid) for dcid in self.dcids}

    def filled(self, template: str, **more: object) -> str:
        """A template of the user's with every name that has a value here."""
        return template.format(
            node=self.number,
            name=self.name,
            address=self.address,
            cluster=self.dvs.cluster,
            debug=self.dvs.debug,
            dest=self.tree,
            state=self.state,
            run=self.run,
            base_port=self.network.proxy_base_port,
            **more,
        )

    def inside(self, folder: str, template: str, **more: object) -> str:
        """A program in its own folder of the tree."""
        return f"cd {shlex.quote(f'{self.tree}/{folder}')} && {self.filled(template, **more)}"

    def peer(self, number: int, other: LabHost | Node) -> dict[str, Any]:
        """One other node: who it is, and which DCs both are in."""
        address = (
            other.network.node_address(number) if isinstance(other, LabHost) else other.address
        )
        return {
            "number": number,
            "name": f"node{number}",
            "address": str(address),
            "port": self.network.proxy_port(number),
            "remote_port": self.network.proxy_port(self.number),
            "dcids": sorted(set(self.dcids) & _dcids(self.lab, other)),
            "service": f"dvs-proxy-node{number}",
        }

    def environment(self) -> dict[str, str]:
        """Variables of every program on this side, quoted for sh; those of a test are left out."""
        out = {}
        for name, template in self.programs.environment.items():
            try:
                out[name] = shlex.quote(self.filled(template))
            except KeyError:
                continue
        return out

    def exported(self, command: str) -> str:
        """A command as a script of its own, with this side's environment."""
        words = "".join(f"{name}={value} " for name, value in self.environment().items())
        enter = ""
        if isinstance(self.one, LabHost) and self.network.namespace:
            enter = f"ip netns exec {self.network.namespace} "
        return f"{enter}env {words}sh -c {shlex.quote(command)}"

    def side(self) -> Side:
        """The whole side as the agent takes it; "files" holds the texts of its scripts."""
        programs, one = self.programs, self.one
        host = isinstance(one, LabHost)
        others = [(n, o) for n, o in _everyone(self.lab) if n != self.number]
        peers = [self.peer(n, o) for n, o in others] if programs.proxy is not None else []
        dcs = [self._dc(dcid) for dcid in self.dcids]
        joins = self._joins(peers)
        init = (None if host else programs.guest_init) or programs.init
        out: Side = {
            "name": self.name,
            "number": self.number,
            "address": self.address,
            "place": "host" if host else "guest",
            "carrier": one.name if isinstance(one, LabHost) else one.host,
            "lab": self.lab.name,
            "shell": [] if isinstance(one, LabHost) else ssh_words(one),
            # On the lab host: who looks at the same time as others looks once.
            "looks": f"{host_run(one.state_dir)}/looks",
            "namespace": self.network.namespace if host else None,
            "cluster": self.dvs.cluster,
            "debug": self.dvs.debug,
            "init": self.inside(programs.init_dir, init),
            "state": self.state,
            "run": self.run,
            "tree": self.tree,
            "folder": self.folder,
            "log": self.log,
            "dcs": dcs,
            "peers": peers,
            # In a guest it turns the logs as well.
            "services": [p["service"] for p in peers]
            + (["dvs-join"] if joins or (peers and not host) else []),
            "patience": _patience(one),
            "start_timeout": programs.start_timeout,
            "connect_timeout": programs.connect_timeout,
            "proxy_restart": programs.proxy_restart,
            "init_end": programs.init_end
            and self.exported(self.inside(programs.init_dir, programs.init_end)),
        }
        out["files"] = self._files(out, joins, log=False)
        # Under runit a service has no log process: it appends to a file of its own.
        out["logging"] = {} if host else self._files(out, joins, log=True)
        return out

    def _dc(self, dcid: int) -> dict[str, Any]:
        programs, file = self.programs, self.programs.dc_file
        end, text, config = programs.dc_end, self.configs[dcid], self._config_path(dcid)
        if isinstance(self.one, Node) and programs.guest_dc is not None:
            file = None
        command = self.inside(programs.dc_dir, self._dc_template(), dcid=dcid, config=config)
        return {
            "dcid": dcid,
            "file": file and self.filled(file, dcid=dcid),
            "command": shlex.quote(command),
            "end": end and self.exported(self.inside(programs.dc_dir, end, dcid=dcid)),
            # The tables do not say how a DC was made: the command, and what it read.
            "made": command if text is None else f"{command} # of {digest(text)[:16]}",
        }

    def _dc_template(self) -> str:
        guest = self.programs.guest_dc if isinstance(self.one, Node) else None
        return guest or self.programs.dc or ""

    def _config_path(self, dcid: int) -> str:
        return f"{self.folder}/dc{dcid}.cfg"

    def _config(self, dcid: int) -> str | None:
        """The text of a DC's configuration file; None where dc takes none."""
        if "{config}" not in self._dc_template():
            return None
        return render("dvs/dc.cfg.j2", dcid=dcid, entries=_entries(self.programs.dc_config))

    def _joins(self, peers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        add = self.programs.add_node
        if add is None:
            return []
        folder = self.programs.add_node_dir
        return [
            {
                "number": peer["number"],
                # A bitmap's last character is bit 0.
                "pattern": f"X{'.' * dcid}$",
                "command": self.inside(folder, add, dcid=dcid, **_remote(peer)),
            }
            for peer in peers
            for dcid in peer["dcids"]
        ]

    def unbind(self, dcid: int, endpoint: int) -> str:
        """The command that frees an endpoint on this side."""
        folder = self.programs.add_node_dir
        return self.exported(
            self.inside(folder, self.programs.unbind, dcid=dcid, endpoint=endpoint)
        )

    def _files(self, side: Side, joins: list[dict[str, Any]], *, log: bool) -> dict[str, str]:
        programs, folder = self.programs, self.folder
        guest = side["place"] == "guest"
        values = {
            **side,
            "environment": self.environment(),
            "read_dc": dcfile.READ,
            "prepare": programs.guest_prepare if guest else None,
            "init": shlex.quote(side["init"]),
            "dcs": [{**dc, "made": shlex.quote(dc["made"])} for dc in side["dcs"]],
            "joins": joins,
            "pauses": _pauses(side),
            "proxy_dir": shlex.quote(f"{self.tree}/{programs.proxy_dir}"),
        }
        files = {f"{folder}/up": render("dvs/up.j2", side=values)}
        for dcid, text in self.configs.items():
            if text is not None:
                files[self._config_path(dcid)] = text
        for peer in side["peers"]:
            assert programs.proxy is not None
            command = self.filled(programs.proxy, **_remote(peer))
            service = peer["service"]
            own = _log(side, service) if log else None
            files[f"{folder}/{service}/run"] = render(
                "dvs/proxy.j2", side=values, peer={**peer, "command": command}, log=own
            )
        if "dvs-join" in side["services"]:
            own = _log(side, "dvs-join") if log else None
            files[f"{folder}/dvs-join/run"] = render("dvs/join.j2", side=values, log=own)
        return files


def _pauses(side: Side) -> list[int]:
    """Seconds between looks, while a join lacks and once none does.

    Each costs processes: in a lab of many nodes all its guests' looks together would fill a core.
    """
    peers, patience = len(side["peers"]), side["patience"]
    return [max(1, round(patience / 40), peers // 6), max(round(patience * 3 / 20), peers // 2)]


def _log(side: Side, service: str) -> str:
    return f"{side['log']}/{service}.log"


def _entries(config: dict[str, int | str]) -> list[tuple[str, str]]:
    """As dc_init reads them: a word or number as it is, all else in quotes."""
    words = {name: str(value) for name, value in config.items()}
    return [(n, w if re.fullmatch(r"-?\w+", w) else f'"{w}"') for n, w in words.items()]


def _patience(one: LabHost | Node) -> float:
    """Seconds for one answer: 20, and more of a node that takes long to boot."""
    return 20.0 if isinstance(one, LabHost) else max(20.0, one.settings.boot_timeout / 6)


def _remote(peer: dict[str, Any]) -> dict[str, Any]:
    return {
        "remote": peer["number"],
        "remote_name": peer["name"],
        "remote_address": peer["address"],
    }


def unbind_command(lab: Lab, number: int, dcid: int, endpoint: int) -> str | None:
    """The command that frees an endpoint on a side; None without a DVS."""
    for each, one in _everyone(lab):
        name = one.name if isinstance(one, LabHost) else f"@uml/{one.name}"
        dvs = lab.settings(name).dvs
        if each == number and dvs is not None:
            return _Maker(lab, dvs, one, number).unbind(dcid, endpoint)
    return None


def files_of(side: Side, kind: str) -> dict[str, str]:
    """{path: text} of all that stands on a side under one kind of supervision."""
    files = dict(side["logging"] if kind == "runit" else side["files"])
    if kind == "sysvinit" and side["services"]:
        files[f"{side['folder']}/keep"] = render("dvs/keep.j2", side=side)
        path = sysvinit.block_path(side["folder"])
        files[path] = sysvinit.block(side["folder"], side["services"])
    elif kind == "systemd":
        for name in ["dvs-up", *side["services"]]:
            unit = f"umlaan-{side['lab']}-{name}.service"
            files[f"/etc/systemd/system/{unit}"] = _unit(side, name)
    return files


def _unit(side: Side, name: str) -> str:
    once = name == "dvs-up"
    prefix = f"umlaan-{side['lab']}"
    network = f"{prefix}-network.service" if side["place"] == "host" else ""
    return render(
        "dvs/unit.j2",
        description=f"{side['name']} of lab {side['lab']}: {name}",
        once=once,
        run=f"{side['folder']}/up" if once else f"{side['folder']}/{name}/run",
        after=network if once else f"{prefix}-dvs-up.service",
    )


def digest(text: str) -> str:
    """As sha256sum says it."""
    return hashlib.sha256(text.encode()).hexdigest()


def asked(side: Side) -> Side:
    """What the agent needs to look at a side: no texts, so that the question stays small."""
    return {key: value for key, value in side.items() if key not in ("files", "logging")}


_LIGHT = (
    *("name", "number", "place", "carrier", "lab", "shell", "state", "run", "folder", "dcs"),
    *("patience", "looks"),
)


def light(side: Side) -> Side:
    """What the agent needs to read a side's tables alone: a lab of 32 nodes fits one question."""
    return {**{key: side[key] for key in _LIGHT}, "services": [], "peers": []}
