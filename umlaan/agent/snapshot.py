"""``snapshot take|restore|remove|list JSON``: a node's root kept under a name, and brought back.

JSON: {node-state's description of the node, "store": folder, "name", "ssh": words}. A snapshot is
STORE/NAME.ext4 with its stamp STORE/NAME.json, which is written last; a file without one is not
there. Where the file system has reflinks a copy costs nothing; else holes stay holes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from umlaan.agent import chroot, extfs, node, quiesce, root, rootlock
from umlaan.agent.atomic import new_file, sweep_all
from umlaan.agent.files import locked, make_folder, read_json, write_json
from umlaan.agent.visible import word

Order = dict[str, Any]
_FICLONE = 0x40049409
_CHUNK = 16 << 20
EVERY_S = 3.0
RESERVE = 64 << 20


class Refused(Exception):
    """Nothing was changed; the message says why and what to do."""


def image(order: Order, name: str) -> str:
    """The file of a snapshot."""
    return f"{order['store']}/{name}.ext4"


def stamp_of(order: Order, name: str) -> dict[str, Any] | None:
    """A snapshot's stamp; None where it is not whole."""
    found = read_json(f"{order['store']}/{name}.json")
    path = image(order, name)
    if not isinstance(found, dict) or not os.path.exists(path) or _is_root(order, path):
        return None
    return found


def listing(order: Order) -> list[dict[str, Any]]:
    """All whole snapshots of a node, the oldest first."""
    try:
        names = [n.removesuffix(".json") for n in os.listdir(order["store"]) if n.endswith(".json")]
    except OSError:
        return []
    rows = [(stamp_of(order, name), name) for name in names]
    found = [
        {**stamp, "name": name, "disk": os.stat(image(order, name)).st_blocks * 512}
        for stamp, name in rows
        if stamp
    ]
    return sorted(found, key=lambda row: (row["at"], row["name"]))


def copy(source: str, target: str, what: str) -> str:
    """Copy beside the target and sync; how: reflink or copy. Refused where it does not fit."""
    with open(source, "rb") as old, open(target, "wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            how = "reflink"
        except OSError:
            _fits(os.fstat(old.fileno()).st_blocks * 512, target)
            _sparse(old.fileno(), new.fileno(), what)
            how = "copy"
        # What a guest made of its root's mode is no file's of root's.
        os.fchmod(new.fileno(), 0o600)
        os.fsync(new.fileno())
    return how


def _fits(needed: int, target: str) -> None:
    status = os.statvfs(os.path.dirname(target))
    free = status.f_bavail * status.f_frsize
    if free < needed + RESERVE:
        raise Refused(
            f"{os.path.dirname(target)} has {free / 1e6:.0f} MB free, the copy needs "
            f"{needed / 1e6:.0f} MB; free some, or remove snapshots (umlaan snapshot --delete)"
        )


def _sparse(old: int, new: int, what: str) -> None:
    size = os.fstat(old).st_size
    os.ftruncate(new, size)
    shown, done = time.monotonic(), 0
    for start, end in _extents(old, size):
        while start < end:
            count = os.copy_file_range(old, new, min(_CHUNK, end - start), start, start)
            if count == 0:
                break
            start += count
            done += count
            if time.monotonic() - shown >= EVERY_S:
                shown = time.monotonic()
                print(f"{what}: {done / 1e6:.0f} MB copied", flush=True)


def _extents(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data."""
    place = 0
    while place < size:
        try:
            start = os.lseek(file, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        place = os.lseek(file, start, os.SEEK_HOLE)
        yield start, place


def check(path: str) -> str:
    """Replay the copy's journal; clean, or replayed. Refused, quoting e2fsck, if it is damaged."""
    found = extfs.look(path)
    if found is None:
        raise Refused(f"{path}: the root holds no ext file system")
    if found["state"] == "clean":
        return "clean"
    done = extfs.repair(path)
    if done.code > 1 or done.fault:
        said = (done.output + done.errors).strip().splitlines()
        why = done.fault or word(" ".join(said[-3:]))
        raise Refused(f"the copy is damaged and was not kept: e2fsck: {why}")
    return "replayed"


@contextlib.contextmanager
def at_rest(order: Order) -> Iterator[str]:
    """Keep the root as it is while the body runs; how: stopped, frozen or paused."""
    record = node.read_record(order["dir"])
    if not node.running(record):
        with _stopped(order, f"snapshot {order['name']}"):
            yield "stopped"
        return
    with quiesce.still(order) as how:
        yield how
        now = node.read_record(order["dir"])
        if not node.running(now) or now is None or record is None or now["pid"] != record["pid"]:
            raise Refused("the node was stopped or started meanwhile; take it again")


@contextlib.contextmanager
def _stopped(order: Order, holder: str) -> Iterator[None]:
    chroot.make_way(order["dir"], order["root"])
    lock = rootlock.take(order["root"], holder, wait=20.0)
    try:
        rootlock.wait_free(order["root"], 5.0)
        yield
    finally:
        os.close(lock)


def take(order: Order) -> None:
    """Keep the root under order's name. Refused if there is one of that name, or no root."""
    name, root = order["snapshot"], order["root"]
    if os.path.exists(image(order, name)) and stamp_of(order, name):
        raise Refused(
            f"it has a snapshot {name} already; choose another name, or "
            f"umlaan snapshot {order['name']} {name} --delete"
        )
    if not os.path.exists(root):
        raise Refused(f"it has no root at {root} yet; umlaan up makes it")
    make_folder(order["store"], 0o700)
    began = time.monotonic()
    with new_file(image(order, name)) as beside:
        with at_rest(order) as state:
            held = time.monotonic()
            how = copy(root, beside, f"snapshot {name}")
            held = time.monotonic() - held
        ended = check(beside)
    _stamp(order, name, state=state, how=how, check=ended, of=order["name"])
    seconds = time.monotonic() - began
    still = "" if state == "stopped" else f", the guest was {state} for {held:.1f} s"
    print(f"{order['name']}: snapshot {name} ({how}) in {seconds:.1f} s{still}")


def _stamp(order: Order, name: str, **about: Any) -> None:
    root_stamp = about.pop("root_stamp", None) or read_json(f"{order['root']}.json")
    size = os.stat(image(order, name)).st_size
    stamp = {**about, "at": time.time(), "size": size, "root_stamp": root_stamp}
    write_json(f"{order['store']}/{name}.json", stamp)


def restore(order: Order) -> None:
    """Bring a snapshot back as the root; the root until now is kept as a snapshot of its own."""
    name, root = order["snapshot"], order["root"]
    stamp = stamp_of(order, name)
    if stamp is None:
        known = ", ".join(row["name"] for row in listing(order)) or "none"
        raise Refused(f"it has no snapshot {name}; it has: {known}")
    if node.running(node.read_record(order["dir"])):
        raise Refused(f"it is up: umlaan down {order['name']} first")
    kept = _kept_name(order)
    with _stopped(order, f"restore {name}"), new_file(root) as fresh:
        how = copy(image(order, name), fresh, f"restore {name}")
        if os.path.exists(root):
            # The root has two names until the other takes its first: there is one at every moment.
            os.link(root, image(order, kept))
            # Its user's id may be another's one day.
            os.chown(root, 0, 0)
            os.chmod(root, 0o600)
            about = f"the root of {order['name']} until {name} was restored"
            _stamp(order, kept, state="stopped", how="kept", check="not checked", of=about)
        else:
            kept = ""
        if stamp.get("root_stamp"):
            write_json(f"{root}.json", stamp["root_stamp"])
    aside = f"; the root until now is snapshot {kept}" if kept else ""
    print(f"{order['name']}: {name} is its root again ({how}){aside}")


def _kept_name(order: Order) -> str:
    """A name for the root until now; a second restore in one second takes no other's."""
    name = time.strftime("before-restore-%Y%m%d-%H%M%S")
    names = (f"{name}-{number}" if number > 1 else name for number in range(1, 1000))
    return next(one for one in names if not os.path.lexists(image(order, one)))


def recover(order: Order) -> None:
    """Undo what a killed restore began: the root is what it was, and has its own stamp again.

    It shows by a snapshot that is the very file of the root.
    """
    for path in glob.glob(f"{glob.escape(order['store'])}/*.ext4"):
        if not _is_root(order, path):
            continue
        stamp = read_json(f"{path.removesuffix('.ext4')}.json")
        if isinstance(stamp, dict) and stamp.get("root_stamp"):
            write_json(f"{order['root']}.json", stamp["root_stamp"])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path.removesuffix('.ext4')}.json")
        os.unlink(path)
    root.unaside(order["root"])


def _is_root(order: Order, path: str) -> bool:
    """Whether a snapshot's file is the root's own, under a second name."""
    try:
        return os.path.samefile(path, order["root"])
    except FileNotFoundError:
        return False


def remove(order: Order) -> None:
    """Delete a snapshot; the stamp goes first, so that a half removed one is not there."""
    name = order["snapshot"]
    if stamp_of(order, name) is None:
        known = ", ".join(row["name"] for row in listing(order)) or "none"
        raise Refused(f"it has no snapshot {name}; it has: {known}")
    os.unlink(f"{order['store']}/{name}.json")
    os.unlink(image(order, name))
    with contextlib.suppress(OSError):
        os.rmdir(order["store"])
        os.rmdir(os.path.dirname(order["store"]))
    print(f"{order['name']}: snapshot {name} is gone")


def _lock_path(order: Order) -> str:
    """By the folder: another lab's node may have the same name."""
    key = hashlib.sha256(os.fsencode(os.path.realpath(order["store"]))).hexdigest()[:20]
    return f"{rootlock.LOCK_DIR}/snapshot-{key}"


def main(argv: list[str]) -> int:
    """The ``snapshot`` verb: 0, or 1 with the reason in one line and nothing changed."""
    verb, order = argv[0], json.loads(argv[1])
    if verb == "list":
        print(json.dumps({one["name"]: listing(one) for one in order["nodes"]}))
        return 0
    work = {"take": take, "restore": restore, "remove": remove}[verb]
    try:
        with locked(_lock_path(order), f"snapshot {verb}", wait=0.5):
            # A copy that was killed: as large as the root, and no snapshot.
            sweep_all(order["store"])
            recover(order)
            work(order)
    except (Refused, quiesce.Restless, rootlock.RootBusy, TimeoutError, OSError) as error:
        print(f"umlaan: {order['name']}: {error}", file=sys.stderr)
        return 1
    return 0
