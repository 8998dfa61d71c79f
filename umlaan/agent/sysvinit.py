"""Services of a guest whose init is sysvinit: respawn lines in a marked block of /etc/inittab.

Each line runs ``keep NAME`` (templates/dvs/keep.j2), which keeps the service running and writes its
log. All here are scripts of sh, for a guest that may have no other interpreter.
"""

from __future__ import annotations

import shlex
from typing import Any

INITTAB = "/etc/inittab"
# The first version of a user's file, for good; where the guest's identity keeps them, too.
BACKUP = f"/var/backups/umlaan{INITTAB}"
# Without characters that sed or awk would take for something else.
FIRST = "# umlaan: services of the DVS, begin"
LAST = "# umlaan: services of the DVS, end"
# Whose inittab it is: busybox reads another one, and has no runlevels.
THERE = "[ -f /etc/inittab ] && command -v telinit >/dev/null"

# A pid that was written in another boot is nobody's, where /run is kept on a disk.
_NOW = "read -r now </proc/sys/kernel/random/boot_id"

Side = dict[str, Any]


def block_path(folder: str) -> str:
    """The block as it is wanted, beside the services; hashes() says what /etc/inittab has of it."""
    return f"{folder}/inittab"


def pid_path(side: Side, name: str) -> str:
    """Where keep writes its own pid and the service's."""
    return f"{side['run']}/{name}.pid"


def entry_id(name: str) -> str:
    """A service's id in /etc/inittab, at most four characters: um0 … um31, umj."""
    number = name.removeprefix("dvs-proxy-node")
    return f"um{number}" if number.isdigit() else "umj"


def block(folder: str, services: list[str]) -> str:
    """The block's text."""
    lines = [f"{entry_id(n)}:2345:respawn:{folder}/keep {n}" for n in services]
    return "\n".join([FIRST, *lines, LAST]) + "\n"


def hashes(folder: str) -> str:
    """Print, as sha256sum does, what stands in /etc/inittab, under the wanted block's name."""
    return (
        f"b=$(sed -n '/^{FIRST}$/,/^{LAST}$/p' {INITTAB} 2>/dev/null); "
        f'[ -z "$b" ] || {{ printf "%s\\n" "$b" | sha256sum | {{ read -r h _; '
        f'echo "$h  {block_path(folder)}"; }}; }}'
    )


def status(side: Side) -> str:
    """Print ``keep NAME KEEPER PID STATE`` of each service, without another process."""
    names = " ".join(side["services"])
    return (
        f"{_NOW}; for n in {names}; do k= p= b= s=; "
        f"read -r k p b 2>/dev/null <{side['run']}/$n.pid; "
        f'[ "$b" != "$now" ] || [ ! -d /proc/$k ] || {{ read -r s 2>/dev/null </proc/$p/stat; '
        f's=${{s##*) }}; echo "keep $n $k $p ${{s%% *}}"; }}; done'
    )


def parse(lines: list[str]) -> dict[str, dict[str, Any]]:
    """{service: {up, pid, state}} of what status() printed."""
    out = {}
    for line in lines:
        words = line.split()
        if words[:1] == ["keep"] and len(words) == 5:
            up = words[4] not in ("Z", "X")
            out[words[1]] = {"up": up, "pid": int(words[3]), "state": words[4]}
    return out


def _rewritten(added: str) -> list[str]:
    """/etc/inittab without the block, and with what added prints behind it; beside and renamed."""
    return [
        f'b={BACKUP}; [ -e "$b" ] || {{ mkdir -p "${{b%/*}}"; cp -p {INITTAB} "$b"; }} || exit 1',
        # Of a block that lost its end only the first line goes: what follows may be the user's.
        f"if grep -qxF '{LAST}' {INITTAB}; then sed '/^{FIRST}$/,/^{LAST}$/d' {INITTAB}; "
        f"else grep -vxF '{FIRST}' {INITTAB}; fi | sed -e '$a\\' >{INITTAB}.umlaan || exit 1",
        f"{added} >>{INITTAB}.umlaan || exit 1",
        f"chmod --reference={INITTAB} {INITTAB}.umlaan",
        f"mv -f {INITTAB}.umlaan {INITTAB} || exit 1",
        "telinit q",
    ]


def follow(side: Side) -> list[str]:
    """Have init run the wanted services, and no others of ours."""
    path = shlex.quote(block_path(side["folder"]))
    return [*_rewritten(f"cat {path}"), *_gone(side, wanted=side["services"])]


def keepers_end(side: Side) -> list[str]:
    """End the keepers that run an older ``keep``; init starts them again with the new one."""
    return [
        f"{_NOW}; for f in {side['run']}/dvs-*.pid; do read -r k p b 2>/dev/null <$f && "
        '[ "$b" = "$now" ] && kill -TERM "$k" 2>/dev/null; done'
    ]


def away(side: Side) -> list[str]:
    """All of them ended, and out of /etc/inittab."""
    return [*_rewritten("true"), *_gone(side, wanted=[])]


def _gone(side: Side, wanted: list[str]) -> list[str]:
    """Wait until the keepers that init has ended are gone with their services; then insist."""
    keep = "|".join(wanted) or "-"
    return [
        f"{_NOW}; for f in {side['run']}/dvs-*.pid; do n=${{f##*/}}; "
        f'case "${{n%.pid}}" in {keep}) continue;; esac; '
        'read -r k p b 2>/dev/null <"$f" || continue; '
        '[ "$b" = "$now" ] || { rm -f "$f"; continue; }; kill -TERM "$k" 2>/dev/null; '
        'for t in 1 2 3 4 5 6 7 8; do [ -d "/proc/$k" ] || break; sleep 1; done; '
        'kill -KILL "$k" 2>/dev/null; kill -KILL "-$p" 2>/dev/null; rm -f "$f"; done',
    ]


def again(side: Side, name: str) -> str:
    """End a service's session; its keeper starts it anew."""
    return (
        f"{_NOW}; read -r k p b 2>/dev/null <{pid_path(side, name)} && "
        '[ "$b" = "$now" ] && { kill -TERM -$p; '
        "kill -CONT -$p; for t in 1 2 3 4 5 6; do kill -0 -$p || break; sleep 1; done; "
        "kill -KILL -$p; } 2>/dev/null; true"
    )
