"""A root of a user's own with sysvinit and ifupdown: made a node, its proxies kept by init."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab

pytestmark = pytest.mark.timeout(1800)
PACKAGES = "sysvinit-core,initscripts,ifupdown,openssh-server,iproute2,iputils-ping"
INITTAB = "etc/inittab"


@pytest.fixture(scope="module")
def users(lab: Lab) -> Iterator[Lab]:
    """The lab on a root that Debian's own tools made, as a user would bring it."""
    lab.folder.mkdir(parents=True, exist_ok=True)
    root, image = lab.folder / "root", lab.folder / "root.ext4"
    words = ["mmdebstrap", "--variant=minbase", "--mode=root", "--skip=check/qemu"]
    words = ["unshare", "--mount", *words, f"--include={PACKAGES}", "bookworm", str(root)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, image], check=True)
    lab.data |= {
        "kernel": "ready:package:user-mode-linux",
        "root": str(image),
        # Its boot scripts fork a lot, and a machine that is tested on is a busy one.
        "node.boot_timeout": "400",
    }
    yield lab


def block(lab: Lab) -> str:
    """What of the guest's inittab is umlaan's."""
    return lab.exec("@uml/node1", "grep", "/etc/umlaan/dvs/keep", "/etc/inittab").output


def test_it_becomes_a_node_and_is_left_alone_then(users: Lab) -> None:
    result = users.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    assert ":2345:respawn:/etc/umlaan/dvs/keep dvs-proxy-node0" in block(users)
    again = users.deploy()
    assert (again.changed, again.verdict) == (0, "up"), again.output


def test_a_killed_proxy_is_started_again_by_its_keeper(users: Lab) -> None:
    script = "read k p b </run/umlaan/dvs-proxy-node0.pid; kill -KILL $p; "
    script += 'until read k q b </run/umlaan/dvs-proxy-node0.pid && [ -n "$q" ] && [ $q != $p ] '
    script += "&& [ -d /proc/$q ]; do sleep 1; done; echo again $q"
    done = users.exec("@uml/node1", script)
    assert done.code == 0 and "again " in done.output, done.output
    result = users.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output


def test_an_edited_inittab_is_repaired(users: Lab) -> None:
    edit = users.exec("@uml/node1", "sed -i /^um0:/d /etc/inittab && telinit q")
    assert edit.code == 0, edit.output
    result = users.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    assert "keep dvs-proxy-node0" in block(users)
    assert users.deploy().changed == 0


def test_all_comes_back_after_a_boot(users: Lab) -> None:
    assert users.pyinfra("tasks/down.py").verdict == "down"
    result = users.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    kept = Path("/var/backups/umlaan") / INITTAB
    lost = users.exec("@uml/node1", f"test -s {kept} && ! grep -q umlaan {kept}")
    assert lost.code == 0, lost.output
    assert users.deploy().changed == 0
