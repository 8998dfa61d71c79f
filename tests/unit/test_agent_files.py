"""Files and locks of the lab host where the machine is unkind: full, narrow umask, odd names."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.uml import REPOSITORY
from umlaan.agent import blocks, files, network, rootlock


@pytest.fixture
def narrow() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_a_lock_still_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "pwrite", full)
    path = str(tmp_path / "lock")
    second = files.locked(path, "a start")
    refused = pytest.raises(TimeoutError, match=rf"lock is held by .*pid {os.getpid()}")
    with files.locked(path, "a stop"), refused, second:
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="locks roots under /run")
def test_on_a_full_disk_a_root_can_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "pwrite", full)
    root = str(tmp_path / "root.ext4")
    lock = rootlock.take(root, "a stop")
    assert rootlock.holder(root) is not None
    os.close(lock)


@pytest.mark.skipif(os.geteuid() != 0, reason="locks roots under /run")
def test_two_who_only_look_do_not_see_each_other(tmp_path: Path) -> None:
    root = str(tmp_path / "root.ext4")
    os.close(rootlock.take(root, "an earlier launch"))
    # What the other one does at the same moment, for as long as it looks.
    script = (
        "import fcntl, os, sys; real = fcntl.flock\n"
        "def flock(d, how):\n"
        "    real(d, how); print('looks', flush=True); sys.stdin.read()\n"
        "fcntl.flock = flock\n"
        "from umlaan.agent import rootlock\n"
        f"rootlock.holder({root!r})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "looks\n"
        assert rootlock.holder(root) is None
    assert other.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device node")
def test_a_device_with_nothing_behind_is_told_and_stops_nobody_else(tmp_path: Path) -> None:
    device = str(tmp_path / "sdz6")
    os.mknod(device, 0o600 | 0o060000, os.makedev(259, 1048000))
    assert rootlock.used_by(device) == "something: it cannot be opened (No such device or address)"


@pytest.mark.usefixtures("narrow")
def test_a_users_file_keeps_its_mode_and_owner_under_any_umask(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1\tlocalhost\n")
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    owner = (path.stat().st_uid, path.stat().st_gid)
    network.put(str(path), 0o600, "new\n")
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o7777 == 0o644
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_a_file_that_cannot_be_renamed_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomic(str(tmp_path / "name"), b"text")
    assert os.listdir(tmp_path) == ["name"]


def test_names_are_put_into_the_file_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, backup = tmp_path / "hosts", tmp_path / "backup/hosts"
    monkeypatch.setattr(network, "HOSTS", str(hosts))
    long = b"0.0.0.0\tan.advertiser.example\r\n" * 20_000 + b"10.0.0.1\tcaf\xe9\n"
    hosts.write_bytes(long)
    words = [str(hosts), "umlaan:a", "192.168.1.101\tnode1", "--backup", str(backup)]
    assert network.main(["names", *words]) == 0
    block = b"# umlaan:a begin\n192.168.1.101\tnode1\n# umlaan:a end\n"
    assert hosts.read_bytes() == long + block
    assert backup.read_bytes() == long
    # What a user adds between two runs stays, whatever the run has read before.
    hosts.write_bytes(hosts.read_bytes() + b"10.0.0.2\tmine\n")
    assert network.main(["names", *words[:2]]) == 0
    assert hosts.read_bytes() == long + b"10.0.0.2\tmine\n"


def test_a_namespace_gets_its_own_copy_of_the_hosts_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, own = tmp_path / "hosts", tmp_path / "netns/hosts"
    monkeypatch.setattr(network, "HOSTS", str(hosts))
    hosts.write_text("127.0.0.1\tlocalhost\n")
    network.put_names(str(own), "umlaan:a", ["192.168.1.101\tnode1"], None)
    assert own.read_text() == (
        f"{network.header('umlaan:a')}\n# umlaan:a begin\n192.168.1.101\tnode1\n# umlaan:a end\n"
        "127.0.0.1\tlocalhost\n"
    )
    hosts.write_text("127.0.0.1\tlocalhost\n10.0.0.1\tmine\n")
    network.put_names(str(own), "umlaan:a", ["192.168.1.101\tnode1"], None)
    assert blocks.without(own.read_text(), "umlaan:a").endswith("10.0.0.1\tmine\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
@pytest.mark.parametrize("name", ["plain", "café", "two words", "back\\slash"])
def test_nothing_is_removed_where_something_is_mounted(tmp_path: Path, name: str) -> None:
    state = tmp_path / name
    (state / "nodes/disk").mkdir(parents=True)
    script = (
        'mount -t tmpfs t "$0/nodes/disk" && echo kept >"$0/nodes/disk/file" && '
        # A stranger's mount with a name in another encoding.
        'mkdir "$0/../$(printf "caf\\351")" && mount -t tmpfs t "$0/../$(printf "caf\\351")" && '
        '"$1" -m umlaan.agent remove do "{\\"state_dir\\": \\"$2\\"}"; echo $?; '
        'cat "$0/nodes/disk/file"'
    )
    spoken = str(state).replace("\\", "\\\\")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(state), sys.executable, spoken],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[1:] == ["1", "kept"], done.stdout + done.stderr
    assert "unmount it first" in done.stdout
