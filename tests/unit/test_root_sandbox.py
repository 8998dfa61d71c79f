"""A stopped root that its guest made hostile: nothing of the machine's is in reach of it."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.uml import REPOSITORY, agent
from umlaan.agent import rootlock, sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts images")
BUSYBOX = "/bin/busybox"
FOLDERS = ("bin", "dev", "proc", "run", "etc", "tmp", "root", "usr/sbin")
COMMAND = [sys.executable, "-S", "-m", "umlaan.agent", "root-run"]
HERE = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
Run = Callable[..., subprocess.CompletedProcess[str]]


def tree_of(folder: Path) -> Path:
    """A root with busybox as all its programs."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, folder / "bin/busybox")
    for name in ("sh", "cat", "ls", "hostname", "date", "ip", "mknod", "base64", "apt-get", "rm"):
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tree_of(tmp_path / "tree")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the machine's, which a guest would like to get at."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "resolv.conf").write_text("the machine's own\n")
    (folder / "lock").mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path, tree: Path) -> Iterator[Run]:
    """Make an image of the tree, run a script in it as a stopped node's root."""
    image = tmp_path / "root.ext4"

    def inside(script: str, *options: str, text: str | None = None) -> Any:
        if not image.exists():
            words = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(image), "16M"]
            subprocess.run(words, check=True)
        words = ["root-run", "--root", str(image), *options, "--", "/bin/busybox", "sh", "-c"]
        return agent(*words, script, text=text)

    yield inside
    if image.exists():
        assert rootlock.used_by(str(image)) is None
    assert "/run/umlaan/root" not in Path("/proc/mounts").read_text()


def content(folder: Path) -> dict[str, Any]:
    """All that a folder shows: names, times, texts."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in paths
    }


def test_namespaces_are_its_own_and_the_old_root_is_gone(run: Run) -> None:
    done = run(
        "for n in cgroup ipc mnt net pid uts; do busybox readlink /proc/1/ns/$n; done; "
        "ls /proc/1/root/"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n", 6)
    for name, inside in zip(("cgroup", "ipc", "mnt", "net", "pid", "uts"), lines[:6], strict=True):
        assert inside.startswith(f"{name}:[")
        assert inside != os.readlink(f"/proc/self/ns/{name}")
    assert set(lines[6].split()) == {name.partition("/")[0] for name in FOLDERS} | {"lost+found"}


def test_a_guest_s_own_programs_reach_nothing(run: Run, tree: Path, victim: Path) -> None:
    (tree / "bin/base64").unlink()
    (tree / "bin/base64").write_text(
        "#!/bin/busybox sh\n"
        f"for p in 1 self $PPID; do echo evil >/proc/$p/root{victim}/owned; done\n"
        f"for p in 1 self $PPID; do echo evil >/proc/$p/cwd/..{victim}/owned; done\n"
    )
    (tree / "bin/base64").chmod(0o755)
    before = content(victim)
    done = run("cat /etc/resolv.conf | /bin/base64; ls /proc")
    assert content(victim) == before
    # Itself, the shell, and no process of the machine's.
    assert len([word for word in done.stdout.split() if word.isdigit()]) <= 3


def test_hostname_sysctls_links_and_clock_stay(run: Run) -> None:
    def host() -> dict[str, Any]:
        names = ("printk", "hostname", "core_pattern", "sysrq")
        found: dict[str, Any] = {
            name: path.read_text()
            for name in names
            if (path := Path("/proc/sys/kernel", name)).exists()
        }
        found["links"] = sorted(os.listdir("/sys/class/net"))
        return found

    before, clock = host(), time.time() - time.monotonic()
    done = run(
        "hostname umlaan-evil; echo 3 3 3 3 >/proc/sys/kernel/printk; "
        "echo x >/proc/sys/kernel/hostname; "
        "ip link set lo down; ip link add evil0 type dummy; date -s @1000000000; "
        "{ : >>/proc/sysrq-trigger; } && echo sysrq; "
        "{ : >>/proc/sys/kernel/printk; } && echo sysctl; "
        "{ : >>/proc/sys/kernel/core_pattern; } && echo pattern; true"
    )
    assert host() == before
    assert abs(time.time() - time.monotonic() - clock) < 600
    # Where this kernel has no sysrq there is no file to write to; the others are refused.
    assert not {"sysrq", "sysctl", "pattern"} & set(done.stdout.split())
    for word in ("sethostname", "can't set date"):
        assert word in done.stderr


def test_few_rights_no_devices_and_no_setuid(run: Run) -> None:
    done = run(
        "cat /proc/self/status; mknod /tmp/null c 1 3; { echo x >/tmp/null; } && echo device; "
        "{ echo x >/dev/null; } && echo null; cat /proc/self/mountinfo"
    )
    assert re.search(r"^NoNewPrivs:\t1$", done.stdout, re.M), done.stdout
    kept = int(re.search(r"^CapEff:\t(\w+)$", done.stdout, re.M)[1], 16)  # type: ignore[index]
    # SYS_ADMIN, SYS_TIME, SYS_MODULE, SYS_RAWIO, SYS_PTRACE, NET_ADMIN, DAC_READ_SEARCH, SYSLOG
    assert not [n for n in (21, 25, 16, 17, 19, 12, 2, 34) if kept >> n & 1]
    words = done.stdout.split()
    assert "device" not in words
    assert "null" in words
    root = next(line for line in done.stdout.splitlines() if line.split()[4:5] == ["/"])
    assert {"nosuid", "nodev"} <= set(root.split()[5].split(","))


@pytest.mark.parametrize("link", ["usr/sbin", "etc", "run", "dev", "proc"])
def test_no_link_of_a_guest_is_followed(run: Run, tree: Path, victim: Path, link: str) -> None:
    shutil.rmtree(tree / link)
    (tree / link).symlink_to(victim)
    before = content(victim)
    for options in ([], ["--network"]):
        done = run("apt-get install x; cat /bin/busybox >/dev/zero; exit 7", *options)
        assert done.returncode == 7, done.stderr
    done = run("exit 7", "--read-only")
    assert done.returncode == 7, done.stderr
    assert content(victim) == before


def test_a_policy_that_was_swapped_while_packages_were_installed(
    run: Run, tree: Path, victim: Path
) -> None:
    before = content(victim)
    script = (
        "[ -x /usr/sbin/policy-rc.d ] && echo there; rm -r /usr/sbin; ln -s %s /usr/sbin; : dpkg"
    )
    done = run(script % victim)
    assert done.stdout == "there\n", done.stderr
    assert content(victim) == before
    done = run("rm /usr/sbin; mkdir /usr/sbin; busybox mkfifo /usr/sbin/policy-rc.d; : dpkg")
    assert done.returncode == 0, done.stderr


def test_services_are_kept_from_starting_and_the_file_goes(run: Run) -> None:
    done = run("sh /usr/sbin/policy-rc.d; echo $?; : apt-get install")
    assert done.stdout == "101\n", done.stderr
    assert run("ls /usr/sbin").stdout == ""
    assert run("echo mine >/usr/sbin/policy-rc.d; : plain").returncode == 0
    assert run("cat /usr/sbin/policy-rc.d; : dpkg").stdout == "mine\n"
    assert run("cat /usr/sbin/policy-rc.d").stdout == "mine\n"


class Service(http.server.BaseHTTPRequestHandler):
    """Listens on the machine's loopback, for whoever asks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"packages\n")

    def log_message(self, *_: Any) -> None:
        pass


def test_what_fetches_packages_reaches_mirrors_and_nothing_else(run: Run, tree: Path) -> None:
    """In the machine's own network it reached all that listens on its loopback."""
    (tree / "bin/wget").symlink_to("busybox")
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Service) as mirror,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Service) as secret,
    ):
        for server in (mirror, secret):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        ours, theirs = (f"127.0.0.1:{s.server_address[1]}" for s in (mirror, secret))
        script = (
            f"wget -q -O - http://{ours}/x; "
            f"wget -q -O - http://{theirs}/x 2>&1; wget -Y off -q -O - http://{theirs}/x 2>&1; "
            "ip link | busybox grep -c ^; : apt-get update"
        )
        done = run(script, "--network", "--mirror", f"http://{ours}/debian")
        for server in (mirror, secret):
            server.shutdown()
    lines = done.stdout.splitlines()
    assert lines[0] == "packages", done.stdout + done.stderr
    assert "403" in lines[1] and "refused" in lines[2], done.stdout
    assert lines[3] == "2", "its own loopback is all that it has"


def test_name_servers_only_where_packages_are_fetched(run: Run) -> None:
    own = Path("/etc/resolv.conf").read_bytes()
    done = run("e=/etc; cat $e/resolv.conf; echo evil >>$e/resolv.conf", "--network")
    assert done.stdout == own.decode()
    assert Path("/etc/resolv.conf").read_bytes() == own
    assert run("e=/etc; cat $e/resolv.conf").stdout == "nameserver 192.0.2.1\n"


def test_what_is_fed_cannot_be_written(run: Run, tmp_path: Path) -> None:
    fed, log = tmp_path / "fed", tmp_path / "log"
    fed.write_text("fed\n")
    log.write_text("before\n")
    run("true")
    words = ["--root", str(tmp_path / "root.ext4"), "--", "/bin/busybox", "sh", "-c"]
    script = "cat; for n in 0 1 2; do echo evil >/proc/self/fd/$n; done; echo end >&2; exit 5"
    with fed.open() as given, log.open("a") as kept:
        done = subprocess.run(
            [*COMMAND, *words, script],
            env=HERE,
            stdin=given,
            stdout=kept,
            stderr=kept,
            timeout=60,
            check=False,
        )
    assert done.returncode == 5
    assert fed.read_text() == "fed\n"
    lines = log.read_text().splitlines()
    assert lines[:2] == ["before", "fed"]
    assert lines[-1] == "end"


def test_who_is_killed_leaves_nothing(run: Run, tmp_path: Path) -> None:
    run("true")
    image = str(tmp_path / "root.ext4")
    words = ["--root", image, "--", "/bin/busybox", "sh", "-c"]
    script = "busybox setsid busybox sleep 987 & echo begun; busybox sleep 987"
    process = subprocess.Popen([*COMMAND, *words, script], env=HERE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    process.wait()
    rootlock.wait_free(image, 30)
    process.stdout.close()


def test_without_bubblewrap_nothing_is_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(sandbox.NoSandbox, match="apt-get install bubblewrap"):
        sandbox.program()


def test_a_root_is_entered_where_low_pids_are_not_there(tmp_path: Path, tree: Path) -> None:
    # A container as lab host has no kernel threads: no process stands in for one of another number.
    image = tmp_path / "root.ext4"
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(image), "16M"]
    subprocess.run(words, check=True)
    asked = [*COMMAND, "--root", str(image), "--read-only", "--", "/bin/busybox", "echo", "there"]
    script = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do /bin/true; done; "$@"'
    alone = ["unshare", "--mount-proc", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]
    done = subprocess.run([*alone, *asked], capture_output=True, text=True, env=HERE)
    assert (done.returncode, done.stdout) == (0, "there\n"), done.stderr
