"""The file that names a DC's init ($DC0=pid): a number is read from it, it is never sourced.

The DVS's programs write it, often into /dev/shm, where anybody may have made that name before.
"""

from __future__ import annotations

import contextlib
import re

from umlaan.agent import trust

# dc_pid DCID FILE puts the number into $pid, from a file of this user's own; in sh itself, because
# a process costs 30 ms in a guest. In a sticky folder nobody else can replace such a file.
READ = """\
dc_own() { [ -f "$1" ] && [ ! -h "$1" ] && [ -O "$1" ]; }
dc_pid() {
    pid=
    dc_own "$2" || return 1
    while read -r a b || [ -n "$a" ]; do
        [ "$a" != export ] || a=$b
        case $a in DC$1=* | DC=*) ;; *) continue ;; esac
        a=${a#*=}
        a=${a#[\\"\\']}
        pid=${a%%[!0-9]*}
        break
    done <"$2"
    [ -n "$pid" ]
}"""


def parse(text: str) -> int | None:
    """The pid which a DC file sets (``DC0=123``, with or without export); None if none."""
    match = re.search(r"^\s*(?:export\s+)?DC\d*=['\"]?(\d{1,9})", text, re.MULTILINE)
    return int(match.group(1)) if match else None


def rows(path: str) -> list[str]:
    """What a look says of a DC of this machine: the pid and what it is, or why it is not believed.

    FileNotFoundError and the like say nothing: then there is no DC.
    """
    try:
        pid = parse(trust.read(path).decode(errors="replace"))
    except PermissionError as error:
        return [f"unbelieved {error.strerror}"]
    except OSError:
        return []
    found = [] if pid is None else [f"pid {pid}"]
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file,
    ):
        found += [line.rstrip("\n") for line in file if line.startswith(("State", "NSpid"))]
    return found
