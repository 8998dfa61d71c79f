"""``live JSON``: what the nodes of a lab host are doing and what their guests say, in one look.

The request is node-state's with "guests": {name: {"ssh": words, "state": folder of the tables,
"tree": path, "stamp": file}}, "tables": the lab host's own folder of tables, "stamps": {variant:
file}, "deadline": seconds that the guests get. The answer: {"rows": node-state's, "guests": {name:
view}, "tables": {file: text}, "stamps": {variant: {"hash", "bytes"}}}. A guest that is late is
left alone: its ssh goes on and leaves a connection behind that the next look finds open.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from typing import Any

from umlaan.agent import bounded, mconsole, node
from umlaan.agent.files import read_json
from umlaan.agent.index import manifest_hash
from umlaan.agent.visible import word

Row = dict[str, Any]
TABLES = ("info", "nodes", "proxies/info")
# A tree that a guest reads in well under a second; larger ones are compared by --drift alone.
SMALL_TREE = 4 << 20
# What a guest may say at most, and for how long one that is late is still let speak.
MOST = 2 << 20
LINES = 10_000
SPARE_S = 60.0
_RELEASE = re.compile(r".* (\S+) #[0-9]", re.DOTALL)
_MARK = "--- umlaan {} ---"


def script(guest: Row, *, compare: bool) -> str:
    """What a guest is asked, in one shell: its fork is slow."""
    folder, tree = shlex.quote(guest["state"]), shlex.quote(guest["tree"])
    lines = [
        f"for f in {' '.join(TABLES)}; do [ -e {folder}/$f ] && "
        f"{{ echo '--- umlaan '$f' ---'; cat {folder}/$f; }}; done",
        f"echo '{_MARK.format('tree')}'",
        f"[ -d {tree} ] || echo missing",
    ]
    if compare:
        # Standard input is read whole even where there is no tree.
        lines.append(
            f"cd {tree} 2>/dev/null && sha256sum -c --quiet - 2>/dev/null || cat >/dev/null"
        )
    lines.append(f"echo '{_MARK.format('end')}'")
    return "\n".join(lines)


def parts(text: str) -> dict[str, str]:
    """The marked parts of a guest's answer; "end" is there if it is whole."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        words = line.split()
        if len(words) == 4 and words[:2] == ["---", "umlaan"] and words[3] == "---":
            name = words[2]
            found[name] = ""
        elif name:
            found[name] += line
    return found


class Asked:
    """One guest being asked."""

    def __init__(self, name: str, guest: Row) -> None:
        self.name = name
        stamp = read_json(guest["stamp"]) if guest.get("stamp") else None
        self.compared = stamp is not None and stamp["bytes"] <= SMALL_TREE
        manifest = ""
        if stamp is not None and self.compared:
            rows = stamp["manifest"].items()
            manifest = "".join(f"{row[2]}  {path}\n" for path, row in rows if row[0] == "file")
        # One that is late goes on, but not for ever.
        words = ["timeout", "-k", "2", f"{SPARE_S:.0f}", *guest["ssh"]]
        self.program = bounded.Program(
            [*words, script(guest, compare=self.compared)],
            data=manifest.encode(errors="surrogateescape"),
            most=MOST,
            errors=subprocess.DEVNULL,
        )

    def view(self, *, late: bool) -> Row:
        """What it said: tables, and of the tree whether it was compared and what differs."""
        found = parts(self.program.text())
        if "end" not in found or self.program.fault:
            heard = "late" if late else "failed"
            return {"heard": heard, "tables": {}, "tree": None, "fault": self.program.fault}
        said = found.get("tree", "").splitlines()
        bad = [
            word(line.rpartition(": ")[0])
            for line in said[:LINES]
            if line.endswith(": FAILED") or ": FAILED " in line
        ]
        tree = {"compared": self.compared, "missing": "missing" in said, "bad": bad}
        tables = {name: found[name] for name in TABLES if name in found}
        return {"heard": "answered", "tables": tables, "tree": tree}


def listen(asked: list[Asked], deadline: float) -> dict[str, Row]:
    """Take the guests' answers until all are in, or the deadline (monotonic) has come."""
    late = bounded.hear([one.program for one in asked], deadline)
    for one in asked:
        one.program.close()
    return {one.name: one.view(late=one.program in late) for one in asked}


def release(one: Row) -> str | None:
    """The running kernel's own word for itself, through its management console."""
    path = f"{one['dir']}/uml/{one['umid']}/mconsole"
    try:
        accepted, text = mconsole.ask(path, "version", timeout=0.5)
    except (mconsole.Silent, ValueError):
        return None
    # "Linux NAME RELEASE #1 …": the name is the guest's own choice, blanks and all.
    found = _RELEASE.match(text[:1024]) if accepted else None
    return word(found[1], 64) if found else None


def tables(folder: str | None) -> dict[str, str]:
    """The lab host's own tables; what is not there is left out."""
    found = {}
    for name in TABLES if folder else ():
        try:
            found[name] = bounded.read(f"{folder}/{name}", MOST).decode(errors="replace")
        except OSError:
            continue
    return found


def stamps(files: dict[str, str]) -> dict[str, Row]:
    """Hash and size of each built variant of the DVS."""
    found = {}
    for variant, path in files.items():
        stamp = read_json(path)
        if isinstance(stamp, dict) and stamp.get("manifest"):
            digest = manifest_hash(stamp["manifest"])
            found[variant] = {"hash": digest, "bytes": stamp.get("bytes")}
    return found


def look(request: Row) -> Row:
    """Rows, guests, tables and stamps."""
    until = time.monotonic() + float(request["deadline"])
    guests = request["guests"]
    up = [
        one
        for one in request["nodes"]
        if one["name"] in guests and node.running(node.read_record(one["dir"]))
    ]
    # First, so that they work while everything else is read.
    asked = [Asked(one["name"], guests[one["name"]]) for one in up]
    rows = node.states(request)
    for one in request["nodes"]:
        rows[one["name"]]["release"] = release(one) if rows[one["name"]]["running"] else None
    answer = {
        "rows": rows,
        "tables": tables(request.get("tables")),
        "stamps": stamps(request["stamps"]),
    }
    heard = listen(asked, until)
    for name, view in heard.items():
        # A greeting can be late on a busy machine; a guest that was heard is there.
        if view["heard"] == "answered":
            rows[name]["answers"] = True
    return {**answer, "guests": heard}


def main(argv: list[str]) -> int:
    """The ``live`` verb."""
    print(json.dumps(look(json.loads(argv[0]))))
    return 0
