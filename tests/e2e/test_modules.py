"""Modules of a guest's kernel in a real guest: loaded, damaged, brought back, taken away."""

from __future__ import annotations

import pytest

from tests.e2e.lab import Lab

pytestmark = pytest.mark.timeout(1200)


def test_a_guest_loads_its_kernels_modules(lab: Lab) -> None:
    lab.data["kernel"] = "ready:package:user-mode-linux"
    result = lab.deploy()
    assert (result.code, result.verdict) == (0, "up"), result.output
    assert "unpack the kernel's modules, there are none" in result.output
    # dummy needs no other module, bridge brings stp and llc along: the index is right, too.
    for module in ("dummy", "bridge"):
        loaded = lab.exec("@uml/node1", "modprobe", module)
        assert loaded.code == 0, loaded.output
    there = lab.exec("@uml/node1", "cat", "/proc/modules")
    assert {"dummy", "bridge", "stp", "llc"} <= set(there.output.split()), there.output
    again = lab.deploy()
    assert (again.changed, again.verdict) == (0, "up"), again.output


def test_a_module_cut_in_the_running_guest_is_brought_back(lab: Lab) -> None:
    path = "/lib/modules/*/kernel/drivers/net/dummy.ko*"
    cut = lab.exec("@uml/node1", "truncate", "-s", "100", path)
    assert cut.code == 0, cut.output
    result = lab.deploy()
    assert "some are missing or cut" in result.output and result.verdict == "up", result.output
    assert lab.deploy().changed == 0


def test_modules_left_out_are_taken_away(lab: Lab) -> None:
    lab.data["kernel.modules"] = "False"
    result = lab.deploy()
    assert "remove umlaan's modules, its kernel has no modules" in result.output, result.output
    assert (result.code, result.verdict) == (0, "up"), result.output
    empty = lab.exec("@uml/node1", "test", "-z", '"$(ls -A /lib/modules)"')
    assert empty.code == 0, empty.output
    assert lab.deploy().changed == 0
