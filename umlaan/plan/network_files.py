"""The files beside the lab's links: names of the nodes, the boot unit, who must keep off."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import basename, dirname

from umlaan.agent.blocks import lines_of, without
from umlaan.agent.network import HOSTS, header, names
from umlaan.plan.network import AGENT, Change, Words, shared_changes, tap_changes
from umlaan.plan.network_state import Found, Wanted
from umlaan.plan.templates import render


def _put(path: str, text: str) -> Words:
    return (AGENT, "network", "put", path, "0644", text)


def _names(wanted: Wanted, *more: str) -> Words:
    # The rows alone: a hosts file may be longer than a command can be.
    return (AGENT, "network", "names", wanted.hosts_file, wanted.mark, *more)


def _rows(wanted: Wanted) -> list[str]:
    return [f"{address}\t{name}" for name, address in wanted.peers]


def hosts_changes(wanted: Wanted, found: Found) -> Iterator[Change]:
    """The nodes' names: a marked block, in a namespace before a copy of the host's own file."""
    path = wanted.hosts_file
    now = found.files.get(path)
    backup = f"{wanted.state_dir}/backup{path}"
    rows = _rows(wanted)
    if names(path, wanted.mark, rows, now, found.files.get(HOSTS)) == now:
        return
    words = _names(wanted, *rows, "--backup", backup)
    yield Change(f"{path}: {_difference(wanted, now)}", (words,))


def _difference(wanted: Wanted, now: str | None) -> str:
    nodes = ", ".join(name for name, _ in wanted.peers)
    first, last = lines_of(wanted.mark)
    lines = (now or "").splitlines()
    if first not in lines:
        return f"add the lab's nodes: {nodes}"
    body = lines[lines.index(first) + 1 :]
    if last not in body:
        return f"write the lab's nodes again ({nodes}), their block has no end"
    body = body[: body.index(last)]
    is_ = {line.split()[1]: line.split()[0] for line in body if len(line.split()) == 2}
    wanted_rows = dict(wanted.peers)
    words = [f"add {n} {a}" for n, a in wanted.peers if n not in is_]
    words += [f"{n} {is_[n]} → {a}" for n, a in wanted.peers if n in is_ and is_[n] != a]
    words += [f"remove {n}" for n in is_ if n not in wanted_rows]
    return ", ".join(words) or f"follow {HOSTS}, block as the lab has it"


_TEMPLATES = {"NetworkManager": "networkmanager.conf.j2", "networkd": "networkd.network.j2"}


def _keep_off(wanted: Wanted) -> list[tuple[str, str, Words]]:
    return [
        ("NetworkManager", wanted.nm_file, ("nmcli", "general", "reload")),
        ("networkd", wanted.networkd_file, ("networkctl", "reload")),
    ]


def keep_off_changes(wanted: Wanted, found: Found) -> Iterator[Change]:
    """On the host itself: NetworkManager and systemd-networkd, where they run, keep off."""
    if wanted.namespace:
        return
    values = {"lab": wanted.lab, "links": [wanted.bridge, *(t.name for t in wanted.taps)]}
    for manager, path, reload in _keep_off(wanted):
        text = render(f"network/{_TEMPLATES[manager]}", **values)
        if manager in found.managers and found.files.get(path) != text:
            yield Change(
                f"{path}: keep {manager} off {', '.join(values['links'])}",
                (_put(path, text), reload),
            )


def boot_script(wanted: Wanted, found: Found | None = None) -> str:
    """All of the lab's links from nothing, as the same plan makes them.

    found: on the host itself, where what the user's own links have decides what the bridge gets.
    """
    if wanted.namespace or found is None:
        bare = Found(namespace="missing" if wanted.namespace else "root")
    else:
        ours = {wanted.bridge, *(tap.name for tap in wanted.taps)}
        others = {
            name: link
            for name, link in found.links.items()
            if name not in ours and link.alias != wanted.mark
        }
        bare = Found(namespace="root", links=others)
    changes = shared_changes(wanted, bare)
    for tap in wanted.taps:
        changes += tap_changes(wanted, tap, bare)
    return render(
        "network/network.sh.j2",
        lab=wanted.lab,
        namespace=wanted.namespace,
        bridge=wanted.bridge,
        commands=[change.shell(AGENT) for change in changes],
    )


def boot_changes(wanted: Wanted, found: Found) -> Iterator[Change]:
    """Where systemd is: a unit that makes the network again at boot, and one for the nodes."""
    if "systemd" in found.managers:
        yield from _network_at_boot(wanted, found)
        yield from _nodes_at_boot(wanted, found)


def _unit(found: Found, path: str, text: str, purpose: str) -> Iterator[Change]:
    if found.files.get(path) != text:
        yield Change(
            f"{basename(path)}: write, {purpose}",
            (_put(path, text), ("systemctl", "daemon-reload")),
        )


def _network_at_boot(wanted: Wanted, found: Found) -> Iterator[Change]:
    script = boot_script(wanted, found)
    if found.files.get(wanted.script) != script:
        yield Change(f"{wanted.script}: the network at boot", (_put(wanted.script, script),))
    purpose = "so that the network is there after a boot"
    yield from _unit(found, wanted.unit_file, network_unit(wanted), purpose)
    if found.files.get(wanted.unit_link) is None:
        yield Change(
            f"{wanted.unit}: enable, it is off",
            (("systemctl", "--quiet", "enable", wanted.unit),),
        )


def network_unit(wanted: Wanted) -> str:
    """The unit that makes the network again at boot."""
    return render(
        "network/network.service.j2",
        lab=wanted.lab,
        state_dir=wanted.state_dir,
        script=wanted.script,
    )


def _nodes_at_boot(wanted: Wanted, found: Found) -> Iterator[Change]:
    name = wanted.nodes_unit
    if found.files.get(wanted.agent) is None:
        yield Change(
            f"{wanted.agent}: place what starts the nodes at boot",
            ((AGENT, "at-boot", "place", wanted.agent),),
        )
    purpose = "so that the nodes come back after a boot"
    yield from _unit(found, wanted.nodes_file, nodes_unit(wanted), purpose)
    missing = [p for p in (wanted.nodes_link, wanted.nodes_done) if found.files.get(p) is None]
    if missing:
        what = "it is off" if wanted.nodes_link in missing else "it did not start in this boot"
        yield Change(
            f"{name}: enable, {what}",
            (
                ("systemctl", "--quiet", "enable", name),
                # Up already without its mark: then only the mark is missing.
                ("systemctl", "start", name),
                ("mkdir", "-p", dirname(wanted.nodes_done)),
                ("touch", wanted.nodes_done),
            ),
        )


def nodes_unit(wanted: Wanted) -> str:
    """The unit that starts the nodes at boot and stops them before the machine goes down."""
    return render(
        "network/nodes.service.j2",
        lab=wanted.lab,
        state_dir=wanted.state_dir,
        agent=wanted.agent,
        network=wanted.unit,
    )


def files_down(wanted: Wanted, found: Found) -> Iterator[Change]:
    """Take out what the above put in, and only that."""
    yield from _hosts_down(wanted, found)
    for manager, path, reload in _keep_off(wanted):
        if found.files.get(path) is not None:
            commands: tuple[Words, ...] = (("rm", "-f", path),)
            if manager in found.managers:
                commands += (reload,)
            yield Change(f"{path}: remove", commands)
    # The nodes' unit is stopped as well: up without its file it would stay in systemd's memory.
    for unit, path, disable, more in (
        (wanted.nodes_unit, wanted.nodes_file, ("disable", "--now"), (wanted.nodes_done,)),
        (wanted.unit, wanted.unit_file, ("disable",), ()),
    ):
        if found.files.get(path) is not None:
            yield Change(
                f"{unit}: remove",
                (
                    ("systemctl", "--quiet", *disable, unit),
                    ("rm", "-f", path, *more),
                    ("systemctl", "daemon-reload"),
                ),
            )
    if found.files.get(wanted.script) is not None:
        yield Change(f"{wanted.script}: remove", (("rm", "-f", wanted.script),))


def names_away(namespace: str) -> tuple[Words, ...]:
    """Remove a namespace's own hosts file, and its folder where nothing else is in it."""
    folder = f"/etc/netns/{namespace}"
    return (
        ("rm", "-f", f"{folder}/hosts"),
        ("sh", "-c", f"rmdir {folder} 2>/dev/null || true"),
    )


def _hosts_down(wanted: Wanted, found: Found) -> Iterator[Change]:
    path = wanted.hosts_file
    now = found.files.get(path)
    if now is None:
        return
    if now.startswith(header(wanted.mark)):
        assert wanted.namespace is not None
        yield Change(f"{path}: remove", names_away(wanted.namespace))
    elif without(now, wanted.mark) != now:
        yield Change(f"{path}: take the lab's nodes out", (_names(wanted),))
