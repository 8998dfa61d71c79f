"""The DVS tree inside a node: what differs from its manifest, and how it is replaced."""

from __future__ import annotations

import shlex
from typing import Any

Rows = dict[str, list[Any]]


def differing(manifest: Rows, found: Rows) -> list[str]:
    """Paths of the manifest that differ or are missing; what is there beside them is no drift."""
    bad = []
    for name, (kind, mode, content) in manifest.items():
        row = found.get(name)
        executable = kind == "file" and bool(mode & 0o100)
        if row is None or row[0] != kind or row[2] != content or bool(row[1]) != executable:
            bad.append(name)
    return sorted(bad)


def reason(node: str, dest: str, manifest: Rows, found: Rows) -> str | None:
    """Why the tree is unpacked; None where it is as built."""
    bad = differing(manifest, found)
    if not bad:
        return None
    if not found:
        return f"{node} {dest}: unpack dvs.tar.gz, the tree is missing"
    shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
    return f"{node} {dest}: unpack dvs.tar.gz, {shown} differ from what was built"


def lack_of_space(node: str, dest: str, need: tuple[int, int], free: tuple[int, int]) -> str | None:
    """Message where (bytes, inodes) do not fit; the old tree stays until the new one is whole."""
    # An ext4 block for the rounding of each file, and a little for directories.
    wanted = need[0] + 4096 * need[1] + (1 << 20)
    if wanted <= free[0] and need[1] + 16 <= free[1]:
        return None
    return (
        f"{node}: {dest} needs {wanted / 1e6:.1f} MB and {need[1] + 16} inodes free in its root; "
        f"it has {free[0] / 1e6:.1f} MB and {free[1]} inodes; nothing was changed there"
    )


def unpack_script(dest: str) -> str:
    """Replace the tree by the tarball on standard input: beside, then renamed.

    Files that are of no manifest (received files, logs) are carried over; those of the last
    manifest that are gone from this one are not. A run killed between the two renames is healed.
    """
    parent, _, name = dest.rpartition("/")
    q = {
        "parent": shlex.quote(parent or "/"),
        "dest": shlex.quote(dest),
        "new": shlex.quote(f"{parent}/.{name}.umlaan-new"),
        "old": shlex.quote(f"{parent}/.{name}.umlaan-old"),
        "list": shlex.quote(f"{parent}/.{name}.umlaan-list"),
        "name": shlex.quote(name),
    }
    return """\
set -e
mkdir -p {parent}
if [ ! -e {dest} ] && [ -e {old} ]; then mv {old} {dest}; fi
rm -rf {new} {old}
mkdir {new}
tar -xzf - -C {new}
(cd {new}/{name} && find . ! -type d | LC_ALL=C sort) >{new}/list
if [ -d {dest} ]; then
    cp -an {dest}/. {new}/{name}/
    if [ -e {list} ]; then
        LC_ALL=C comm -23 {list} {new}/list | while IFS= read -r f; do rm -f {new}/{name}/"$f"; done
    fi
fi
sync
[ ! -e {dest} ] || mv {dest} {old}
mv {new}/{name} {dest}
mv {new}/list {list}
rm -rf {new} {old}
sync""".format(**q)
