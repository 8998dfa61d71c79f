"""What an ext file system says of itself, read from its superblock: nothing is mounted or written.

Layout: the kernel's Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from umlaan.agent import bounded, sandbox

_OFFSET = 1024
_MAGIC = 0xEF53
_HAS_JOURNAL, _NEEDS_RECOVERY = 0x4, 0x4
_VALID, _ERRORS = 0x1, 0x2
_64BIT = 0x80
REPAIR_S = 900.0
_BLKID = ("blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE")


def look(path: str) -> dict[str, Any] | None:
    """The file system of a partition or image; None if it is no ext2, ext3 or ext4.

    state: clean, journal (an unclean end; a mount replays it), unclean (no journal that could) or
    errors (the kernel found faults). bytes: what the file system spans; size: what the path has.
    OSError if it cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(_OFFSET)
        block = file.read(1024)
        size = file.seek(0, os.SEEK_END)
    if len(block) < 1024 or struct.unpack_from("<H", block, 0x38)[0] != _MAGIC:
        return None
    blocks = struct.unpack_from("<I", block, 0x4)[0]
    unit = 1024 << struct.unpack_from("<I", block, 0x18)[0]
    flags = struct.unpack_from("<H", block, 0x3A)[0]
    compatible, incompatible = struct.unpack_from("<2I", block, 0x5C)
    if incompatible & _64BIT:
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
    if flags & _ERRORS:
        state = "errors"
    elif incompatible & _NEEDS_RECOVERY:
        state = "journal"
    else:
        state = "clean" if flags & _VALID or compatible & _HAS_JOURNAL else "unclean"
    return {"state": state, "bytes": blocks * unit, "size": size}


def holds(path: str, name: str) -> bool | None:
    """Whether a file is in an unmounted ext file system, links followed; None if unknown."""
    try:
        said = sandbox.run_tool(["debugfs", "-R", f"stat {name}"], path, seconds=20)
    except OSError:
        return None
    if "File not found" in said.errors:
        return False
    return "Inode:" in said.output or None


def type_of(path: str) -> str:
    """What blkid says that a path holds; empty if nothing that it knows."""
    try:
        return sandbox.run_tool(_BLKID, path, seconds=60, most=64 << 10).output.strip()
    except OSError:
        return ""


def writable(path: str) -> bool:
    """False for a write-protected device, or an image on a read-only file system."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def repair(path: str) -> bounded.Said:
    """e2fsck -p: what is safe without asking."""
    return sandbox.run_tool(["e2fsck", "-p"], path, writable=True, seconds=REPAIR_S)
