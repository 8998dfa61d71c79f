"""Trees of Debian for tests, made by mmdebstrap without a mount, in a cache by content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from umlaan.agent import apt

CACHE = Path.home() / ".cache" / "umlaan" / "tests"
SUITE = "bookworm"
UNUSED_S = 14 * 86400


def cached(name: str, words: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """A file or folder of the cache, named by all that it is made from; made where it is missing.

    words: what it depends on. make is given a path beside it, which becomes it once it is whole.
    """
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    path = CACHE / f"{name}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        # Several test processes may want it at once: one makes it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for old in CACHE.glob(f"{name}-*"):
            if old != path and time.time() - old.stat().st_mtime > UNUSED_S:
                remove(old)
        if not path.exists():
            beside = CACHE / f".{path.name}.new"
            remove(beside)
            make(beside)
            beside.rename(path)
        os.utime(path)
    return path


def remove(path: Path) -> None:
    """A file or a whole folder away, if it is there; AssertionError where a mount is below it.

    Through a mount the removal would go on in what belongs to the whole machine.
    """
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [one for one in mounts if f"{one}/".startswith(f"{path.resolve()}/")]
    assert not below, f"{path}: not removed, mounted there: {', '.join(below)}"
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def recipe(arch: str, packages: tuple[str, ...]) -> tuple[str, ...]:
    """mmdebstrap's words for a Debian without documentation, up to the folder."""
    # The kernel under us runs i386 as well; mmdebstrap would ask another tool whether it does.
    words = ["mmdebstrap", "--mode=root", "--quiet", "--variant=minbase"]
    words += [f"--architectures={arch}", "--skip=check/qemu,output/dev"]
    words.append(f"--include={','.join(packages)}")
    for name in ("doc", "man", "locale", "info"):
        words.append(f"--dpkgopt=path-exclude=/usr/share/{name}/*")
    return (*words, SUITE)


def bootstrap(tree: Path, words: tuple[str, ...]) -> None:
    """A recipe's Debian in an empty folder."""
    # What it mounts, the machine's own /dev/shm too, is seen nowhere else; all of it ends with us.
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount-proc", "--pid", "--fork"]
    alone += ["--kill-child", "--propagation", "private"]
    # A machine's other sources need not carry the architecture.
    source = f"deb {apt.mirror()} {SUITE} main"
    subprocess.run([*alone, *words, str(tree), source], check=True, stdin=subprocess.DEVNULL)
    # The root of the tree becomes the root of the machine: its mode is seen there.
    tree.chmod(0o755)
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(tree / folder, ignore_errors=True)
        (tree / folder / "partial").mkdir(parents=True)


def write(tree: Path, name: str, text: str, mode: int = 0o644) -> None:
    """A file below a tree, its folders made."""
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def without(tree: Path, masked: tuple[str, ...]) -> None:
    """Units of systemd's masked in a tree."""
    units = tree / "etc/systemd/system"
    for name in masked:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")


def enable(tree: Path, unit: str, target: str = "multi-user.target") -> None:
    """A unit of systemd's started at boot, in a tree."""
    wants = tree / "etc/systemd/system" / f"{target}.wants"
    wants.mkdir(parents=True, exist_ok=True)
    link = wants / unit
    link.unlink(missing_ok=True)
    template = f"{unit.partition('@')[0]}@.service" if "@" in unit else unit
    own = (tree / "etc/systemd/system" / template).exists()
    link.symlink_to(f"{'/etc' if own else '/lib'}/systemd/system/{template}")


def ssh_key() -> Path:
    """The key pair that enters the machines of tests, made once."""

    def make(folder: Path) -> None:
        folder.mkdir(mode=0o700)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "umlaan-test"]
        subprocess.run([*words, "-f", str(folder / "id_ed25519")], check=True)

    return cached("ssh", ("ed25519",), make) / "id_ed25519"


def let_in(tree: Path) -> None:
    """Have root of a tree be entered by the tests' key."""
    write(tree, "root/.ssh/authorized_keys", ssh_key().with_suffix(".pub").read_text(), 0o600)
    (tree / "root/.ssh").chmod(0o700)
