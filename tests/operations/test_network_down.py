"""The network taken away: all of ours, nothing of others'."""

from __future__ import annotations

import pytest
from pyinfra.api.state import StateStage

from tests.operations.network_answers import (
    HOSTS,
    IP,
    MARK,
    ON_HOST,
    USER,
    bare,
    link,
    of,
    on_host,
    run,
    whole,
)
from tests.operations.support import LAB
from umlaan.operations import network

USERDEL = f"userdel {USER} && sh -c '! getent group {USER} >/dev/null || groupdel {USER}'"


def test_down_with_nothing_there() -> None:
    assert run("down", bare()) == []


def test_down_takes_the_namespace_with_all_of_ours() -> None:
    reasons: list[tuple[str, str]] = []
    assert run("down", whole(), reasons=reasons) == [
        "ip netns delete umlaan",
        "rm -f /etc/netns/umlaan/hosts && sh -c 'rmdir /etc/netns/umlaan 2>/dev/null || true'",
        USERDEL,
    ]
    assert reasons[0] == (LAB, "network namespace umlaan: remove, with HTAP, eth0, br0")


def test_down_leaves_what_others_put_there() -> None:
    found = whole()
    found["addr"].append(link("veth7", "veth", ifalias=None))
    links = [f"{IP} link del {name}" for name in ("HTAP", "eth0", "br0")]
    assert run("down", found)[:-2] == links
    found = whole()
    of(found, "lo")["ifalias"] = None
    assert run("down", found)[:-2] == links, "a namespace that umlaan did not make went"
    found["addr"] = [of(found, "lo"), link("br0", "bridge", ifalias=None)]
    found["files"].pop("/etc/netns/umlaan/hosts")
    found["accounts"][USER]["comment"] = "somebody's own"
    assert run("down", found) == []


def test_down_takes_the_namespace_that_the_lab_had_before() -> None:
    found = bare()
    user = {"pid": 9, "command": "linux", "taps": []}
    found["elsewhere"] = [{"name": "old", "users": []}, {"name": "older", "users": [user]}]
    assert run("down", found) == [
        "ip netns delete old && rm -f /etc/netns/old/hosts && "
        "sh -c 'rmdir /etc/netns/old 2>/dev/null || true'"
    ]


def test_down_fails_while_a_tap_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "LINGER_S", 0.1)
    found = whole()
    found["users"] = [{"pid": 77, "command": "linux", "taps": ["HTAP"]}]
    planned = run("down", found, stage=StateStage.Prepare)
    assert planned[0] == "ip netns delete umlaan", "planned as if its guest still ran"
    assert run("down", found) == ["tap HTAP is held by pid 77 (linux): stop it first"]


def test_down_on_the_host_itself_takes_the_block_out() -> None:
    found = on_host()
    block = f"# {MARK} begin\n192.168.1.101\tnode1\n# {MARK} end\n"
    found["files"] = {"/etc/hosts": HOSTS + block + "10.0.0.1\tmine\n"}
    (command, away) = run("down", found, ON_HOST)
    assert command == f"umlaan-agent network names /etc/hosts {MARK}"
    assert away == USERDEL
