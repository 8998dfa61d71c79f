"""``network read|put|txoff …``: the lab host's links, and the files beside them, as one JSON value.

``read NAMESPACE|- [--file FILE]… [--account USER]… [--leaving MARK]`` prints what
plan/network_state.py parses.
``put FILE MODE TEXT`` writes a file atomically.
``names FILE MARK [--backup FILE] [ROW]…`` puts the lab's block of names into a hosts file, or takes
it out where there are no rows; the file's first version is kept.
``give NAMESPACE|- TAP USER`` makes a tap that nobody holds a user's.
``txoff NAMESPACE|- LINK`` turns a tap's transmit checksum offload off (ethtool -K LINK tx off).
"""

from __future__ import annotations

import argparse
import array
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pwd
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from umlaan.agent import tap
from umlaan.agent.blocks import with_block, without
from umlaan.agent.files import write_atomic

HOSTS = "/etc/hosts"
NM_PID = "/run/NetworkManager/NetworkManager.pid"
NETNS_DIR = "/run/netns"
CLONE_NEWNET = 0x40000000
TUN = os.makedev(10, 200)
SIOCETHTOOL = 0x8946
ETHTOOL_GTXCSUM = 0x16
ETHTOOL_STXCSUM = 0x17


def namespace_state(name: str | None) -> str:
    """root (no namespace asked for), here, missing, or broken (a name with no namespace behind)."""
    if name is None:
        return "root"
    path = f"{NETNS_DIR}/{name}"
    if not os.path.lexists(path):
        return "missing"
    # A namespace is another file system than /run; a bare file there is a leftover.
    return "here" if os.stat(path).st_dev != os.stat(NETNS_DIR).st_dev else "broken"


@contextlib.contextmanager
def inside(name: str | None) -> Iterator[None]:
    """This thread is in the namespace meanwhile. OSError if it cannot enter."""
    if name is None:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(f"{NETNS_DIR}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(other, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter network namespace {name}")
        finally:
            os.close(other)
        try:
            yield
        finally:
            if libc.setns(own, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot leave network namespace {name}")
    finally:
        os.close(own)


def _ethtool(link: str, command: int, value: int = 0) -> int:
    buffer = array.array("B", struct.pack("II", command, value))
    address, _ = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP", link.encode(), address) + b"\0" * 16)
    return int(struct.unpack("II", buffer.tobytes())[1])


def tx_checksum(links: list[str]) -> dict[str, bool]:
    """Whether each link leaves transmit checksums to its receiver; links without the notion out."""
    found = {}
    for link in links:
        with contextlib.suppress(OSError):
            found[link] = bool(_ethtool(link, ETHTOOL_GTXCSUM))
    return found


def users_of(name: str | None) -> list[dict[str, Any]]:
    """Live processes inside the namespace, with the taps each holds: [{pid, command, taps}]."""
    wanted = os.stat(f"{NETNS_DIR}/{name}" if name else "/proc/self/ns/net").st_ino
    rows = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}/ns/net").st_ino == wanted:
                rows.append({"pid": int(pid), "command": _comm(pid), "taps": _taps(pid)})
    return rows


def _taps(pid: str) -> list[str]:
    taps = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        # A descriptor may close while it is looked at.
        with contextlib.suppress(OSError):
            # Any node of it, also a sandbox's own.
            info = os.stat(f"/proc/{pid}/fd/{descriptor}")
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == TUN:
                with open(f"/proc/{pid}/fdinfo/{descriptor}") as file:
                    taps += re.findall(r"^iff:\s*(\S+)", file.read(), re.MULTILINE)
    return taps


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _comm(pid: str) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def text_of(path: str) -> str | None:
    """A file's text; None where there is none. One named by its content is not read."""
    if path.endswith(".zip"):
        return path if os.path.exists(path) else None
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def surroundings(files: list[str]) -> dict[str, Any]:
    """What stands beside the links: files, who manages networks here, which address carries ssh."""
    managers = []
    if os.path.isdir("/run/systemd/system"):
        managers.append("systemd")
        # networkd writes this file; the folder alone is there without it too.
        if os.path.exists("/run/systemd/netif/state"):
            managers.append("networkd")
    if os.path.exists(f"/proc/{(text_of(NM_PID) or 'none').strip()}/comm"):
        managers.append("NetworkManager")
    ssh = os.environ.get("SSH_CONNECTION", "").split()
    return {
        "files": {path: text_of(path) for path in files},
        "managers": managers,
        "ssh": [ssh[0], ssh[2]] if len(ssh) == 4 else None,
    }


def _ip(*words: str) -> Any:
    done = subprocess.run(["ip", "-j", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.returncode, f"ip {' '.join(words)}: {done.stderr.strip()}")
    return json.loads(done.stdout or "[]")


def links_by_ip() -> dict[str, Any]:
    """Links, addresses and routes as ``ip -j`` prints them, and the taps' offload."""
    if shutil.which("ip") is None:
        # Before the toolchain stage of a bare machine: nothing of ours can be there.
        return {}
    links = [row for row in _ip("-d", "addr") if row.get("ifname")]
    return {"addr": links, "route": _ip("-4", "route"), "tx": tx_checksum(taps_of(links))}


def taps_of(links: list[dict[str, Any]]) -> list[str]:
    """The names of the taps among links."""
    return [row["ifname"] for row in links if (row.get("linkinfo") or {}).get("info_kind") == "tun"]


def marked_namespaces(mark: str, but: str | None, links: Any) -> list[dict[str, Any]]:
    """Other namespaces whose lo carries the lab's mark: [{name, users}]. The lab has moved out."""
    rows = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(NETNS_DIR)):
            with contextlib.suppress(OSError):
                if name == but or namespace_state(name) != "here":
                    continue
                with inside(name):
                    found = links()["addr"]
                if any(row["ifname"] == "lo" and row.get("ifalias") == mark for row in found):
                    rows.append({"name": name, "users": users_of(name)})
    return rows


def account_of(name: str) -> pwd.struct_passwd:
    """A user by name. OSError if there is none."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise OSError(f"there is no user {name}") from None


def accounts_of(names: list[str]) -> dict[str, dict[str, Any] | None]:
    """{user: {uid, comment}}, None where there is none of that name."""
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(names)
    for name in names:
        with contextlib.suppress(KeyError):
            row = pwd.getpwnam(name)
            found[name] = {"uid": row.pw_uid, "comment": row.pw_gecos}
    return found


def read(
    name: str | None,
    files: list[str],
    *,
    accounts: list[str],
    leaving: str = "",
    links: Any = None,
) -> Any:
    """All that the plan wants to know; links replaces the reader that calls ip.

    leaving, the lab's mark, looks also for processes in the namespace and for others of the lab's.
    """
    links = links or links_by_ip
    state = namespace_state(name)
    found: dict[str, Any] = {"namespace": state, "addr": [], "route": [], "tx": {}}
    if state in ("here", "root"):
        with inside(name if state == "here" else None):
            found.update(links())
        if leaving:
            found["users"] = users_of(name)
    if leaving:
        found["elsewhere"] = marked_namespaces(leaving, name, links)
    found["accounts"] = accounts_of(accounts)
    found.update(surroundings(files))
    return found


def header(mark: str) -> str:
    """The first line of a hosts file that is umlaan's own copy of the host's."""
    return f"# {mark}: {HOSTS} with the lab's nodes before it"


def names(path: str, mark: str, rows: list[str], now: str | None, hosts: str | None) -> str:
    """What a hosts file is to hold: its own text and the lab's block of rows, or none.

    now: its text; hosts: the host's own, which is copied into a namespace's file that nobody has.
    """
    if not rows:
        return without(now or "", mark)
    if path == HOSTS:
        return with_block(now or "", mark, rows)
    if now is None or now.startswith(header(mark)):
        base = without(hosts or "127.0.0.1\tlocalhost\n", mark)
        return f"{header(mark)}\n{with_block(base, mark, rows, on_top=True)}"
    return with_block(without(now, mark), mark, rows, on_top=True)


def put_names(path: str, mark: str, rows: list[str], backup: str | None) -> None:
    """Bring a hosts file to what it is to hold, as it is at this moment."""
    before = text_of(path)
    text = names(path, mark, rows, before, text_of(HOSTS))
    if backup and before is not None and not os.path.exists(backup):
        write_atomic(backup, before.encode(errors="surrogateescape"), 0o600)
    if text != before:
        put(path, 0o644, text)


def put(path: str, mode: int, text: str) -> None:
    """Write a file, one that is there keeps owner and mode. A bind-mounted one in place."""
    path = os.path.realpath(path)
    data = text.encode(errors="surrogateescape")
    owner = None
    with contextlib.suppress(FileNotFoundError):
        info = os.stat(path)
        mode, owner = stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid)
    try:
        write_atomic(path, data, mode)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        with open(path, "wb") as file:
            file.write(data)
    if owner is not None:
        os.chown(path, *owner)


def main(argv: list[str]) -> int:
    """The ``network`` verb."""
    parser = argparse.ArgumentParser(prog="network")
    verbs = parser.add_subparsers(dest="verb", required=True)
    reads = verbs.add_parser("read")
    reads.add_argument("namespace")
    reads.add_argument("--file", action="append", default=[])
    reads.add_argument("--account", action="append", default=[])
    reads.add_argument("--leaving", default="")
    puts = verbs.add_parser("put")
    puts.add_argument("path")
    puts.add_argument("mode", type=lambda text: int(text, 8))
    puts.add_argument("text")
    blocks = verbs.add_parser("names")
    blocks.add_argument("path")
    blocks.add_argument("mark")
    blocks.add_argument("rows", nargs="*")
    blocks.add_argument("--backup")
    gives = verbs.add_parser("give")
    gives.add_argument("namespace")
    gives.add_argument("tap")
    gives.add_argument("user")
    off = verbs.add_parser("txoff")
    off.add_argument("namespace")
    off.add_argument("link")
    options = parser.parse_args(argv)
    namespace = None if getattr(options, "namespace", "-") == "-" else options.namespace
    try:
        if options.verb == "read":
            found = read(namespace, options.file, accounts=options.account, leaving=options.leaving)
            print(json.dumps(found))
        elif options.verb == "put":
            put(options.path, options.mode, options.text)
        elif options.verb == "names":
            put_names(options.path, options.mark, options.rows, options.backup)
        elif options.verb == "give":
            with inside(namespace):
                tap.give(options.tap, account_of(options.user).pw_uid)
        else:
            with inside(namespace):
                _ethtool(options.link, ETHTOOL_STXCSUM, 0)
    except OSError as error:
        print(f"network {options.verb}: {error}", file=sys.stderr)
        return 1
    return 0
