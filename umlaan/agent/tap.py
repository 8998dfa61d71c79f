"""The tap that a launch is about to hand to a guest: there, free, its user's, no stale offloads."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct

from umlaan.agent import proc

_TUNSETIFF = 0x400454CA
_TUNSETOWNER = 0x400454CC
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_WORD = re.compile(r"^eth\d+=tuntap,([^,]+)|^vec\d+:.*\bifname=([^,]+)")


def taps_of(argv: list[str]) -> list[str]:
    """The taps that a UML's command line names."""
    found = (_WORD.match(word) for word in argv)
    return [match.group(1) or match.group(2) for match in found if match]


def fault_of(name: str, uid: int) -> str | None:
    """Make a tap fit for a guest, in this network namespace; what is wrong with it, or None.

    It belongs to the UML's user: one that an earlier launch held could not be given away.

    A vector guest leaves its checksum and segmentation offloads on a persistent tap: a tuntap
    guest after it answers ping while every TCP packet is lost.
    """
    try:
        socket.if_nametoindex(name)
    except OSError:
        return f"tap {name} is not there; the network stage makes it"
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(tun, _TUNSETOFFLOAD, 0)
        fcntl.ioctl(tun, _TUNSETOWNER, uid)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return f"tap {name} is held by another process"
        return f"tap {name}: {error.strerror}"
    finally:
        os.close(tun)
    return None


def give(name: str, uid: int) -> None:
    """Make a tap that nobody holds, in this network namespace, a user's. OSError if that fails."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(tun, _TUNSETOWNER, uid)
    finally:
        os.close(tun)


def prepare(namespace: str | None, argv: list[str], uid: int) -> str | None:
    """Make the taps of a command line fit, inside the lab's namespace; the first fault, or None."""
    names = taps_of(argv)
    if not names:
        return None

    def first() -> str:
        return next(filter(None, (fault_of(name, uid) for name in names)), "")

    try:
        return proc.ask_inside(namespace, first) or None
    except OSError as error:
        return str(error)
