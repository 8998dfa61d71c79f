"""``live JSON``: what the nodes of a lab host are doing and what their guests say, in one look.

The request is node-state's with "guests": {name: {"ssh": words, "state": folder of the tables,
"tree": path, "stamp": file}}, "tables": the lab host's own folder of tables, "stamps": {variant:
file}, "deadline": seconds that the guests get. The answer: {"rows": node-state's, "guests": {name:
view}, "tables": {file: text}, "stamps": {variant: {"hash", "bytes"}}}. A guest that is late is
left alone: its ssh goes on and leaves a connection behind that the next look finds open.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import subprocess
import sys
import time
from typing import Any

from umlaan.agent import mconsole, node
from umlaan.agent.files import read_json
from umlaan.agent.index import manifest_hash

Row = dict[str, Any]
TABLES = ("info", "nodes", "proxies/info")
# A tree that a guest reads in well under a second; larger ones are compared by --drift alone.
SMALL_TREE = 4 << 20
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
        self.text = b""
        stamp = read_json(guest["stamp"]) if guest.get("stamp") else None
        self.compared = stamp is not None and stamp["bytes"] <= SMALL_TREE
        manifest = ""
        if stamp is not None and self.compared:
            rows = stamp["manifest"].items()
            manifest = "".join(f"{row[2]}  {path}\n" for path, row in rows if row[0] == "file")
        # A file, not a pipe: nobody has to feed it, however slow the guest reads.
        feed = os.memfd_create("manifest")
        os.write(feed, manifest.encode(errors="surrogateescape"))
        os.lseek(feed, 0, os.SEEK_SET)
        self.process = subprocess.Popen(
            [*guest["ssh"], script(guest, compare=self.compared)],
            stdin=feed,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(feed)

    def view(self, *, late: bool) -> Row:
        """What it said: tables, and of the tree whether it was compared and what differs."""
        found = parts(self.text.decode(errors="replace"))
        if "end" not in found:
            return {"heard": "late" if late else "failed", "tables": {}, "tree": None}
        said = found["tree"].splitlines()
        bad = [
            line.rpartition(": ")[0]
            for line in said
            if line.endswith(": FAILED") or ": FAILED " in line
        ]
        tree = {"compared": self.compared, "missing": "missing" in said, "bad": bad}
        tables = {name: found[name] for name in TABLES if name in found}
        return {"heard": "answered", "tables": tables, "tree": tree}


def listen(asked: list[Asked], deadline: float) -> dict[str, Row]:
    """Take the guests' answers until all are in, or the deadline (monotonic) has come."""
    late: set[str] = set()
    with selectors.DefaultSelector() as selector:
        for one in asked:
            assert one.process.stdout is not None
            selector.register(one.process.stdout, selectors.EVENT_READ, one)
        while selector.get_map():
            left = deadline - time.monotonic()
            events = selector.select(max(0.0, left))
            for key, _ in events:
                data = os.read(key.fd, 65536)
                key.data.text += data
                if not data:
                    selector.unregister(key.fileobj)
            if not events and left <= 0:
                late = {key.data.name for key in selector.get_map().values()}
                break
    return {one.name: one.view(late=one.name in late) for one in asked}


def release(one: Row) -> str | None:
    """The running kernel's own word for itself, through its management console."""
    path = f"{one['dir']}/uml/{one['umid']}/mconsole"
    try:
        accepted, text = mconsole.ask(path, "version", timeout=0.5)
    except (mconsole.Silent, ValueError):
        return None
    words = text.split()
    return words[2] if accepted and len(words) > 2 else None


def tables(folder: str | None) -> dict[str, str]:
    """The lab host's own tables; what is not there is left out."""
    found = {}
    for name in TABLES if folder else ():
        try:
            with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:
                found[name] = file.read()
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
    json.dump(look(json.loads(argv[0])), sys.stdout)
    print()
    return 0
