"""Another local user of the machine, who has no rights here, as the tests need one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Of nobody in particular; it need not have a name.
UID = 61234


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder like /tmp: for everybody, and sticky."""
    made = Path(tempfile.mkdtemp(prefix="umlaan-test-", dir="/tmp"))
    made.chmod(0o1777)
    yield made
    shutil.rmtree(made)


def as_other(act: Callable[[], object]) -> str:
    """Do it as the other user; "" or the error that it met."""
    groups, umask = os.getgroups(), os.umask(0)
    os.setgroups([])
    os.setegid(UID)
    os.seteuid(UID)
    try:
        act()
    except OSError as error:
        return repr(error)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        os.umask(umask)
    return ""


def started_by_other(*words: str) -> subprocess.Popen[bytes]:
    """A process of the other user's that carries these words until it is ended."""
    return subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600; :", *words], user=UID, group=UID, extra_groups=[]
    )


KINDS = ("file", "folder", "link to a folder", "link to a file", "FIFO", "socket")


def squat(path: Path, kind: str) -> None:
    """What the other user has made first under a name; in a folder that is open to all."""
    elsewhere = path.with_name(f"{path.name}.theirs")

    def make() -> None:
        if kind == "file":
            path.write_text("DC7=1; touch /tmp/umlaan-was-here\n")
        elif kind == "folder":
            path.mkdir()
            (path / "umlaan").mkdir()
        elif kind == "link to a folder":
            elsewhere.mkdir()
            path.symlink_to(elsewhere)
        elif kind == "link to a file":
            elsewhere.write_text("DC7=1\n")
            path.symlink_to(elsewhere)
        elif kind == "FIFO":
            os.mkfifo(path)
        else:
            with socket.socket(socket.AF_UNIX) as door:
                door.bind(str(path))

    assert as_other(make) == ""
