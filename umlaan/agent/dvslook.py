"""One look at one side of the DVS: its tables, its DCs' inits, its services, in one command.

A side is the lab host or a guest; both speak sh, so that one script serves both. What a side holds
is JSON from ``umlaan.plan.dvsup.side``.
"""

from __future__ import annotations

import concurrent.futures
import re
import shlex
import time
from typing import Any

from umlaan.agent import bounded, dcfile, supervise, sysvinit
from umlaan.agent.sharedlook import shared
from umlaan.agent.visible import word

Side = dict[str, Any]
View = dict[str, Any]
_SECTION = re.compile(r"^==> (.+) <==$")
_SV = re.compile(r"^(\w+): (\S+?): \(pid (\d+)\) (\d+)s")
LOOKS = 4
REFUSED = "Connection refused"
PATIENCE_S = 20.0
MOST = 4 << 20
UNIT = "umlaan-{lab}-{service}.service"


def unit(side: Side, service: str) -> str:
    """The name of a service's systemd unit; in a guest there is but one lab."""
    return UNIT.format(lab=side["lab"], service=service)


def slow(*sides: Side) -> float:
    """How many times as long as usual the slowest of these sides may take for anything."""
    return max(float(side.get("patience") or PATIENCE_S) / PATIENCE_S for side in sides)


def run_there(side: Side, script: str, data: bytes | None, timeout: float) -> tuple[int, str, str]:
    """(exit code, output, errors) of a script of sh on a side; 124 when the deadline passed."""
    words = [*side["shell"], f"exec sh -c {shlex.quote(script)}"] if side["shell"] else None
    said = bounded.run(words or ["sh", "-c", script], timeout, data=data, most=MOST)
    if said.fault:
        return bounded.LATE, "", f"{side['name']}: {said.fault}"
    return said.code, said.output, said.errors


def script(side: Side) -> str:
    """What is asked, in few processes: each costs 30 ms in a guest."""
    state, folder = shlex.quote(side["state"]), shlex.quote(side["folder"])
    tables = ["info", "nodes", "proxies/info"]
    for dc in side["dcs"]:
        tables += [f"DC{dc['dcid']}/info", f"DC{dc['dcid']}/procs"]
    lines = [
        f"cd {state} 2>/dev/null && tail -n +1 {' '.join(tables)} 2>/dev/null",
        "cd /",
        dcfile.READ,
    ]
    for dc in side["dcs"]:
        lines += [
            f"echo; echo '==> @dc {dc['dcid']} <=='",
            _made(f"{side['run']}/dvs-dc{dc['dcid']}"),
        ]
        if dc["file"] and side["place"] == "guest":
            path = shlex.quote(dc["file"])
            lines += [
                f'dc_pid {dc["dcid"]} {path} && echo "pid $pid" && '
                "grep -h -e ^State -e ^NSpid /proc/$pid/status 2>/dev/null",
                f'[ -n "$pid" ] || ! [ -e {path} ] || dc_own {path} || '
                "echo unbelieved it is no file of root\\'s own",
            ]
    record = f"{shlex.quote(side['run'])}/dvs-init"
    lines += [
        "echo; echo '==> @init <=='",
        f"x= y= z=; [ -r {record} ] && {{ IFS= read -r x; read -r y; }} <{record}",
        'read -r z 2>/dev/null </proc/sys/kernel/random/boot_id; printf "%s\\n" "$x" "$y" "$z"',
        "echo '==> @pids <=='; echo /proc/[0-9]*",
    ]
    if not side["services"]:
        kinds = "if [ -d /run/systemd/system ]; then echo kind systemd; "
        if side["place"] == "guest":
            kinds += "elif [ -d /etc/service ]; then echo kind runit; "
            kinds += f"elif {sysvinit.THERE}; then echo kind sysvinit; "
        return "\n".join([*lines, "echo '==> @services <=='", f"{kinds}else echo kind own; fi"])
    names = " ".join(side["services"])
    units = " ".join(unit(side, name) for name in side["services"])
    lines += [
        "echo '==> @hashes <=='",
        f"sha256sum {folder}/up {folder}/*.cfg {folder}/*/run {folder}/*/log/run "
        f"/etc/systemd/system/{UNIT.format(lab=side['lab'], service='dvs-*')} 2>/dev/null",
        *(_inittab(folder) if side["place"] == "guest" else []),
        "echo '==> @services <=='",
        "if [ -d /run/systemd/system ]; then echo kind systemd; "
        f"systemctl show -p Id,ActiveState,MainPID {units} 2>/dev/null; ",
    ]
    if side["place"] == "guest":
        lines[-1] += f"elif [ -d /etc/service ]; then echo kind runit; sv status {names}; "
        lines[-1] += f"elif {sysvinit.THERE}; then echo kind sysvinit; {sysvinit.status(side)}; "
    lines[-1] += "else echo kind own; fi"
    return "\n".join(lines) + "\ntrue"


def _made(path: str) -> str:
    """sh that says how a DC was made, if that is on record, without a process of its own."""
    name = shlex.quote(path)
    return f'[ -r {name} ] && IFS= read -r x <{name} && printf "made %s\\n" "$x"'


def _inittab(folder: str) -> list[str]:
    """What is asked of a guest whose init may be sysvinit."""
    inittab = sysvinit.hashes(folder)
    return [f"if {sysvinit.THERE}; then sha256sum {folder}/keep 2>/dev/null; {inittab}; fi"]


def parse(side: Side, output: str) -> View:
    """The view: {files, dcs, pids, hashes, kind, services} as the script printed them.

    A side that prints what is none of that is one that does not answer.
    """
    try:
        return _parsed(side, output)
    except (ValueError, IndexError) as fault:
        return silent(f"{side['name']}: what it says of its DVS makes no sense: {fault}")


def _parsed(side: Side, output: str) -> View:
    sections: dict[str, list[str]] = {}
    rows: list[str] = []
    for line in output.splitlines():
        found = _SECTION.match(line)
        if found:
            rows = sections[found.group(1)] = []
        else:
            rows.append(line)
    files = {n: "\n".join(rows) + "\n" for n, rows in sections.items() if not n.startswith("@")}
    init, then, now = (sections.get("@init", []) + ["", "", ""])[:3]
    if then and then != now:
        # Tables that are files outlive a boot of their side; what they say does not.
        files, init = {}, ""
    hashes = {}
    for line in sections.get("@hashes", []):
        digest, _, path = line.partition("  ")
        hashes[path] = digest
    pids = [
        int(word[6:])
        for line in sections.get("@pids", [])
        for word in line.split()
        if word[6:].isdigit()
    ]
    kind, services = _services(side, sections.get("@services", []))
    dcs = {}
    for dc in side["dcs"]:
        said = list(sections.get(f"@dc {dc['dcid']}", []))
        if dc["file"] and side["place"] == "host":
            said += dcfile.rows(dc["file"])
        dcs[str(dc["dcid"])] = _dc(dc, said, files)
    return {
        "answers": True,
        "error": "",
        "files": files,
        "dcs": dcs,
        "pids": pids,
        "init": init or None,
        "hashes": hashes,
        "kind": kind,
        "services": services,
    }


def _dc(dc: dict[str, Any], rows: list[str], files: dict[str, str]) -> dict[str, Any]:
    """{pid, fault, made}: its init, alive and a PID namespace's; how it was made, if known."""
    there = f"DC{dc['dcid']}/info" in files
    made = next((line[5:] for line in rows if line.startswith("made ")), None)
    if not dc["file"]:
        return {"pid": None, "fault": None if there else "missing", "made": made}
    said = {line.split()[0].rstrip(":"): line.split()[1:] for line in rows if line.split()}
    pid = next((word for word in said.get("pid", []) if word.isdigit()), None)
    if "unbelieved" in said:
        why = " ".join(said["unbelieved"])
        return {"pid": None, "fault": f"{dc['file']} is not believed: {why}", "made": made}
    if pid is None:
        return {"pid": None, "fault": f"{dc['file']} names no init", "made": made}
    fault = None
    if "State" not in said or said["State"][0] in "ZX":
        fault = f"its init {pid} is dead"
    elif len(said.get("NSpid", [])) < 2 or said["NSpid"][-1] != "1":
        fault = f"pid {pid} is not the init of a PID namespace"
    elif not there:
        fault = f"the DVS knows no DC{dc['dcid']}"
    return {"pid": int(pid), "fault": fault, "made": made}


def _services(side: Side, lines: list[str]) -> tuple[str, dict[str, Any]]:
    kind = next((line[5:] for line in lines if line.startswith("kind ")), "own")
    out: dict[str, Any] = {}
    if kind == "runit":
        for line in lines:
            found = _SV.match(line)
            if found:
                name = found.group(2).rpartition("/")[2]
                out[name] = {"up": found.group(1) == "run", "pid": int(found.group(3))}
    elif kind == "sysvinit":
        out = sysvinit.parse(lines)
    elif kind == "systemd":
        names = {unit(side, name): name for name in side["services"]}
        rows = [line.partition("=")[::2] for line in lines if "=" in line]
        current = ""
        for key, value in sorted_blocks(rows):
            if key == "Id":
                current = names.get(value, "")
                out[current] = {"up": False, "pid": None}
            elif current and key == "ActiveState":
                out[current]["up"] = value == "active"
            elif current and key == "MainPID":
                out[current]["pid"] = int(value) or None
        out.pop("", None)
    elif side["place"] == "host":
        found_status = supervise.status(side["run"])
        if found_status and found_status["alive"]:
            for name, row in found_status["services"].items():
                out[name] = {k: row[k] for k in ("up", "pid", "restarts", "said", "state")}
    return kind, out


def sorted_blocks(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """systemctl prints a block a unit in an order of its own: Id first in each."""
    blocks: list[list[tuple[str, str]]] = [[]]
    for key, value in rows:
        if any(key == known for known, _ in blocks[-1]):
            blocks.append([])
        blocks[-1].append((key, value))
    return [row for block in blocks for row in sorted(block, key=lambda r: r[0] != "Id")]


def blank(view: View) -> bool:
    """True where a table came empty: the DVK keeps one reading position for all its readers."""
    return any(not text.strip() for text in view["files"].values())


def look(side: Side) -> View:
    """One side now; answers is False, with the error, where it did not answer whole."""
    for _ in range(LOOKS):
        view = _once(side, PATIENCE_S * slow(side))
        if REFUSED in view["error"]:
            # An sshd that starts anew does not listen for a moment.
            time.sleep(slow(side))
        elif not blank(view):
            break
    return view


def _once(side: Side, timeout: float) -> View:
    code, output, errors = run_there(side, script(side), None, timeout)
    if code or "==> @services <==" not in output:
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), "")
        return silent(last or f"exit code {code}")
    return parse(side, output)


def silent(error: str) -> View:
    """The view of a side that did not answer whole."""
    return {
        "answers": False,
        "error": word(error),
        "files": {},
        "dcs": {},
        "pids": [],
        "init": None,
        "hashes": {},
        "kind": None,
        "services": {},
    }


def _with_others(side: Side) -> View:
    """A look from now on, of this process or of another that asks the same."""
    if not side["shell"] or not side.get("looks"):
        return look(side)
    wait = 2 * PATIENCE_S * slow(side)
    return shared(side["looks"], side["name"], script(side), lambda: look(side), wait)


def looks(sides: list[Side]) -> dict[str, View]:
    """Several sides at once, by name."""
    with concurrent.futures.ThreadPoolExecutor(max(1, len(sides))) as pool:
        found = pool.map(_with_others, sides)
    return {side["name"]: view for side, view in zip(sides, found, strict=True)}
