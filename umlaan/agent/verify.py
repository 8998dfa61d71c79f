"""``verify SPEC``: what the procedure's own checks look at, read from both sides of one node.

SPEC is JSON from ``umlaan.plan.verify.spec``. Prints {"checks": [{"what", "host", "guest", "ok",
"detail"}, …]}: the host's view and the guest's view of each. A wait ends for want of
progress.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from typing import Any

from umlaan.agent import bounded, dvslook, verifydvs
from umlaan.agent.files import read_json
from umlaan.agent.patience import Wait
from umlaan.agent.verifydvs import Check, check

_LOOK = "@@ tables @@"
# A guest that has just booted may start its sshd anew (ifupdown's and networkd's hooks do): for so
# many seconds nobody listens.
RESTART_S = 15.0

Spec = dict[str, Any]


def run(command: list[str], text: str | None = None, timeout: float = 30.0) -> tuple[int, str]:
    """(exit code, output and errors); 124 when the deadline passed."""
    # Names of files may be no UTF-8, and the lab host's locale says nothing of the guest's.
    data = (text or "").encode(errors="surrogateescape")
    said = bounded.run(command, timeout, data=data, errors=subprocess.STDOUT)
    return (said.code, said.fault) if said.fault else (said.code, said.output)


def round_trip(output: str) -> str:
    """The time in ping's output, or nothing."""
    found = re.search(r"time=([\d.]+ ms)", output)
    return found.group(1) if found else ""


def guest_script(spec: Spec) -> str:
    """What the guest is asked, in one shell: its fork is slow."""
    lines = [
        "echo hostname $(cat /proc/sys/kernel/hostname)",
        "echo release $(cat /proc/sys/kernel/osrelease)",
        "ip -o -4 addr show | sed 's/^/address /'",
        f"ping -n -q -c 1 -W 2 {spec['node0']['address']} >/dev/null 2>&1; echo ping $?",
    ]
    if spec["dvs"]:
        dest = shlex.quote(spec["dvs"]["dest"])
        if not spec["dvs"]["compared"]:
            lines.append(f"cd {dest} 2>/dev/null && sha256sum -c --quiet - 2>&1 | sed 's/^/bad /'")
        lines.append(f"test -d {dest} || echo bad {dest} is missing")
    lines.append("echo end")
    if spec["pairs"]:
        # The tables in the same breath: each connection costs the guest a fork or two.
        own = spec["pairs"]["sides"][spec["pairs"]["own"]]
        lines += [f"echo {_LOOK}", dvslook.script(own)]
    return "\n".join(lines)


def guest_view(spec: Spec) -> dict[str, Any]:
    """What the guest says of itself; "error" where it did not answer whole."""
    manifest = ""
    if spec["dvs"] and not spec["dvs"]["compared"]:
        stamp = read_json(spec["dvs"]["stamp"]) or {"manifest": {}}
        rows = stamp["manifest"].items()
        manifest = "".join(f"{row[2]}  {name}\n" for name, row in rows if row[0] == "file")
    patience = float(spec.get("patience") or 60)
    waiting = Wait(RESTART_S)
    while True:
        code, output = run([*spec["ssh"], guest_script(spec)], manifest, timeout=patience)
        if code != 255 or dvslook.REFUSED not in output or not waiting.goes_on(output):
            break
        waiting.pause(least=0.5)
    view: dict[str, Any] = {"addresses": [], "bad": [], "error": "", "ping": ""}
    output, _, tables = output.partition(f"{_LOOK}\n")
    view["tables"] = tables
    lines = output.splitlines()
    if code or not lines or lines[-1] != "end":
        view["error"] = (lines[-1] if lines else f"exit code {code}")[:200]
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "address":
            found = re.match(r"\d+: (\S+)\s+inet (\S+)", rest)
            if found:
                view["addresses"].append(f"{found.group(1)} {found.group(2)}")
        elif word == "bad":
            view["bad"].append(rest)
        elif word in ("hostname", "release", "ping"):
            view[word] = rest
    return view


def checks(spec: Spec) -> list[Check]:
    """All rows for one node, in the procedure's order."""
    inside = ["ip", "netns", "exec", spec["namespace"]] if spec["namespace"] else []
    code, ping = run([*inside, "ping", "-n", "-c", "1", "-W", "2", spec["address"]], timeout=5)
    if code:
        detail = f"{spec['name']} does not answer ping at {spec['address']}"
        return [check("ping host → guest", False, "no answer", "", detail)]
    rows = [check("ping host → guest", True, round_trip(ping), spec["address"])]
    pairs = verifydvs.Pairs(spec["pairs"]) if spec["pairs"] else None
    if pairs:
        pairs.exchange_all()
    started = time.monotonic()
    view = guest_view(spec)
    if view["error"]:
        return [*rows, check("ssh", False, "no answer", "", view["error"])]
    rows.append(check("ssh", True, f"{1000 * (time.monotonic() - started):.0f} ms", "answers"))
    name, release = view.get("hostname", ""), view.get("release", "")
    rows.append(check("hostname", name == spec["name"], spec["name"], name))
    stamp = read_json(spec["kernel_stamp"]) or {}
    wanted = stamp.get("release") or ""
    rows.append(check("kernel", not wanted or release == wanted, wanted or "(any)", release))
    own = f"{spec['interface']} {spec['cidr']}"
    seen = [a for a in view["addresses"] if not a.startswith("lo ")]
    rows.append(check("address", own in seen, own, ", ".join(seen)))
    rows.append(
        check(
            "ping guest → node0",
            view["ping"] == "0",
            spec["node0"]["address"],
            "answers" if view["ping"] == "0" else "no answer",
        )
    )
    if spec["dvs"]:
        bad = [line for line in view["bad"] if "WARNING" not in line]
        said = "as built" if not bad else f"{len(bad)} files differ"
        rows.append(check("DVS tree", not bad, spec["dvs"]["dest"], said, "; ".join(bad[:3])))
    return rows + (pairs.checks(view["tables"]) if pairs else [])


def main(argv: list[str]) -> int:
    """The ``verify`` verb."""
    spec = json.loads(argv[0])
    print(json.dumps({"checks": checks(spec)}))
    return 0
