"""What of a side's change needs its whole node, where proxies cannot be ended."""

from __future__ import annotations

from umlaan.plan.dvsup import Change


def test_only_proxies_are_stuck_a_join_can_start_anew() -> None:
    assert Change(restart=["dvs-join"]).stuck() == []
    both = ["dvs-join", "dvs-proxy-node2"]
    assert Change(restart=both).stuck() == ["dvs-proxy-node2"]
    assert Change(restart=both, idle={"dvs-proxy-node2"}).stuck() == []
