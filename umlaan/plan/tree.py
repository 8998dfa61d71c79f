"""The DVS tree inside a node: what differs from its manifest, and how it is replaced."""

from __future__ import annotations

import os
import shlex
from typing import Any

from umlaan.agent.visible import word

Rows = dict[str, list[Any]]
# Names the files that the tree came with; in the tree itself, so that both change in one rename.
LIST = ".umlaan-files"


def differing(manifest: Rows, found: Rows) -> list[str]:
    """Paths of the manifest that differ or are missing; what is there beside them is no drift."""
    bad = []
    for name, (kind, mode, content) in manifest.items():
        row = found.get(name)
        executable = kind == "file" and bool(mode & 0o100)
        if row is None or row[0] != kind or row[2] != content or bool(row[1]) != executable:
            bad.append(name)
    return sorted(bad)


def reason(
    node: str, dest: str, manifest: Rows, found: Rows, leftovers: tuple[str, ...] = ()
) -> str | None:
    """Why the tree is unpacked; None where it is as built."""
    bad = differing(manifest, found)
    if bad and not found:
        return f"{node} {dest}: unpack dvs.tar.gz, the tree is missing"
    if bad:
        shown = ", ".join(map(word, bad[:3])) + (
            f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        )
        return f"{node} {dest}: unpack dvs.tar.gz, {shown} differ from what was built"
    if leftovers:
        return f"{node} {dest}: remove {', '.join(map(word, leftovers))}, left by a killed unpack"
    return None


def unpacked(size: int, entries: int) -> tuple[int, int]:
    """(bytes, inodes) that a tree takes while the old one stays, until the new one is whole."""
    # An ext4 block for the rounding of each file, and a little for directories.
    return size + 4096 * entries + (1 << 20), entries + 16


def lack_of_space(
    node: str, root: str, what: str, need: tuple[int, int], free: tuple[int, int]
) -> str | None:
    """Message where (bytes, inodes) do not fit into a node's root; None where they do."""
    if need[0] <= free[0] and need[1] <= free[1]:
        return None
    return (
        f"{node}: {what} needs {need[0] / 1e6:.1f} MB and {need[1]} inodes free in {root}; "
        f"it has {free[0] / 1e6:.1f} MB and {free[1]} inodes; nothing was changed there"
    )


def beside(dest: str) -> tuple[str, str]:
    """(the new tree until it is whole, the old one until it is gone), beside a tree."""
    parent, _, name = dest.rpartition("/")
    return f"{parent}/.{name}.umlaan-new", f"{parent}/.{name}.umlaan-old"


def listing_script(dest: str) -> str:
    """Print the tree as one line of base64, then "left PATH" for what a killed unpack left.

    Only the files that the tree came with are read: a user's received files may be large.
    """
    new, old = map(shlex.quote, beside(dest))
    return f"""\
if cd {shlex.quote(dest)} 2>/dev/null; then {{
find . -mindepth 1 -printf '%y\\0%m\\0%P\\0%l\\0'; printf '\\0'
if [ -f {LIST} ]; then cat {LIST}; else find . -type f -print0; fi | xargs -0 -r sha256sum -z
}} 2>/dev/null | base64 -w0; cd /; fi; echo
for f in {new} {old}; do [ ! -e $f ] || echo "left $f"; done"""


def parse_listing(data: bytes) -> Rows:
    """What listing_script found: {path: [kind, executable, hash or target]}; any names."""
    fields = data.split(b"\0")
    rows: Rows = {}
    at = 0
    while at + 3 < len(fields) and fields[at]:
        kind, mode, name, target = fields[at : at + 4]
        at += 4
        path = os.fsdecode(name)
        if kind == b"f":
            rows[path] = ["file", bool(int(mode, 8) & 0o100), ""]
        elif kind == b"l":
            rows[path] = ["link", False, os.fsdecode(target)]
        elif kind == b"d":
            rows[path] = ["dir", False, ""]
    for line in fields[at + 1 :]:
        digest, _, name = line.partition(b"  ")
        row = rows.get(os.fsdecode(name).removeprefix("./"))
        if row is not None and row[0] == "file":
            row[2] = digest.decode("ascii", "replace")
    return rows


def clean_script(dest: str) -> str:
    """Remove what a killed unpack left beside a tree that is whole."""
    return f"rm -rf {' '.join(map(shlex.quote, beside(dest)))}"


def unpack_script(dest: str) -> str:
    """Replace the tree by the tarball on standard input: beside, then renamed.

    What the tree did not come with (received files, logs) is carried over as the same files, by
    hard links; what cannot be, because the new tree has something else in its place, stays with
    the old tree under a name that is told. A run killed between the two renames is healed.
    """
    return _UNPACK.replace("@DEST@", shlex.quote(dest)).replace("@LIST@", LIST)


_UNPACK = """\
set -e
export LC_ALL=C
d=$(readlink -f @DEST@) || d=@DEST@
p=${d%/*}
new=$p/.${d##*/}.umlaan-new
old=$p/.${d##*/}.umlaan-old
mkdir -p "$p/"
if [ ! -e "$d" ] && [ -e "$old" ]; then mv "$old" "$d"; fi
rm -rf "$new" "$old"
mkdir -p "$new/in"
trap 'rm -rf "$new"' EXIT
if ! tar -xzf - --no-same-owner -C "$new/in"; then
    echo "umlaan: not unpacked; free now: $(df -h --output=avail,iavail "$new" | tail -n 1)" >&2
    exit 1
fi
for top in "$new"/in/*; do :; done
cd "$top"
entries() { find . -mindepth 1 \\( ! -type d -o -empty \\) -print0; }
entries | sort -z >"$new/list"
mv "$new/list" @LIST@
if [ -d "$d" ]; then
    cd "$d"
    { cat "$top/@LIST@"; printf './@LIST@\\0'; cat @LIST@ 2>/dev/null || true; } |
        sort -z -u >"$new/ours"
    entries | sort -z | comm -z -23 - "$new/ours" >"$new/theirs"
    if ! xargs -0 -r cp -a --link --parents -t "$top" <"$new/theirs"; then
        old=$d.umlaan-kept-$(date +%Y%m%d-%H%M%S)
        echo "umlaan: not all files could be carried over; the old tree stands at $old"
    fi
    cd "$p/"
elif [ -e "$d" ]; then
    old=$d.umlaan-kept-$(date +%Y%m%d-%H%M%S)
    echo "umlaan: $d was no directory; it stands at $old now"
fi
sync
[ ! -e "$d" ] || mv "$d" "$old"
mv "$top" "$d"
case $old in *.umlaan-old) rm -rf "$old";; esac
sync"""
