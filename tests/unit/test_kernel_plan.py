"""Reasons, packages and build roots: pure functions of the model."""

from __future__ import annotations

from typing import Any

import pytest

from umlaan.agent import apt, kobjects
from umlaan.model.kernel import Kernel
from umlaan.model.lab import HostData, Lab, build_lab
from umlaan.model.toolchain import BuildRoot
from umlaan.plan import toolchain
from umlaan.plan.kernel import differences, implied, kernels_on


def lab(*nodes: dict[str, Any], **data: Any) -> Lab:
    rows = [HostData("@local", False, data)]
    rows += [
        HostData(f"@uml/node{n}", True, {**data, **d}) for n, d in enumerate(nodes or ({},), 1)
    ]
    return build_lab(rows)


def test_the_default_lab_needs_few_packages() -> None:
    assert toolchain.packages(lab(), "@local") == (
        *("bc", "bison", "bubblewrap", "ccache", "e2fsprogs", "flex", "gcc", "iproute2"),
        *("iputils-ping", "kmod", "libc6-dev", "make", "mmdebstrap", "openssh-client", "patch"),
        *("util-linux", "xz-utils"),
    )


def test_packages_follow_the_data() -> None:
    ready = toolchain.packages(lab(kernel="ready:/usr/bin/linux.uml", dvs=None), "@local")
    assert "gcc" not in ready
    assert "flex" not in ready
    device = toolchain.packages(lab(root="/dev/sdb6"), "@local")
    assert "mmdebstrap" not in device
    rooted = {"suite": "bullseye", "arch": "i386"}
    other = {"source": "/usr/src/linux", "toolchain": rooted, "patches": ["/p"]}
    needed = toolchain.packages(lab(kernel=other, root="/dev/sdb6", dvs=None), "@local")
    assert {"mmdebstrap", "patch"} <= set(needed)
    assert "gcc" not in needed
    old = toolchain.packages(lab(kernel={"subarch": "i386"}), "@local")
    assert "libc6-i386 [amd64]" in old
    static = {"subarch": "i386", "options": {"STATIC_LINK": "y"}}
    assert "libc6-i386 [amd64]" not in toolchain.packages(lab(kernel=static), "@local")
    assert "libc6-i386 [amd64]" not in toolchain.packages(
        lab(kernel={"subarch": "i386", "toolchain": rooted}), "@local"
    )
    url = {"source": {"url": "https://example.org/l.tar.xz", "sha256": "0" * 64}}
    assert "curl" in toolchain.packages(lab(kernel=url), "@local")
    host = toolchain.packages(lab(host_kernel={"arch": "x86_64"}), "@local")
    assert {"initramfs-tools", "libssl-dev", "libelf-dev"} <= set(host)
    rooted32 = {"bits": 32, "toolchain": rooted}
    needed = toolchain.packages(lab(dvs=rooted32, kernel="ready:/x", root="/dev/sdb6"), "@local")
    assert {"mmdebstrap", "libc6-i386 [amd64]"} <= set(needed)
    assert "gcc" not in needed
    assert "gcc-multilib" in toolchain.packages(lab(dvs={"bits": 32}), "@local")


def test_a_kernel_of_a_build_root_is_static_unless_said() -> None:
    rooted = Kernel.model_validate({"toolchain": {"suite": "bullseye", "arch": "i386"}})
    assert implied(rooted, {"NET": "y"}) == {"STATIC_LINK": "y", "NET": "y"}
    assert implied(rooted, {"STATIC_LINK": "n"}) == {"STATIC_LINK": "n"}
    assert implied(Kernel(), {"NET": "y"}) == {"NET": "y"}
    assert implied(Kernel(), {}, elsewhere=True) == {"STATIC_LINK": "y"}
    host = Kernel.model_validate({"toolchain": {"suite": "bullseye"}, "arch": "i386"})
    assert implied(host, {}) == {}


def test_each_kernel_and_build_root_once() -> None:
    rooted = {"source": "/usr/src/linux", "toolchain": {"suite": "bullseye", "arch": "i386"}}
    found = lab({}, {}, {"kernel": rooted}, {"kernel": rooted}, dvs=None)
    assert len(kernels_on(found, "@local")) == 2
    assert toolchain.build_roots(found, "@local") == (BuildRoot(suite="bullseye", arch="i386"),)


def test_a_build_root_is_named_by_its_content() -> None:
    one = toolchain.build_root(BuildRoot(suite="bullseye", arch="i386"), "/c")
    more = toolchain.build_root(BuildRoot(suite="bullseye", arch="i386", packages=("cpio",)), "/c")
    assert one
    assert more
    assert one["dir"].startswith("/c/buildroot/")
    assert one["dir"] != more["dir"]
    assert one["label"] == "bullseye/i386"
    assert toolchain.build_root("native", "/c") is None


@pytest.mark.parametrize(
    ("field", "then", "now", "said"),
    [
        ("options", {"A": "n"}, {"A": "y", "B": "y"}, ["CONFIG_A n → y", "CONFIG_B n → y"]),
        ("options", {"A": "y"}, {}, ["CONFIG_A y → n"]),
        ("options", {"A": "n"}, {}, []),
        ("make", {"CC": "gcc"}, {}, ["make CC gcc → unset"]),
        (
            "overlays",
            [{"path": "/a", "hash": "1"}, {"path": "/b", "hash": "2"}],
            [{"path": "/b", "hash": "2"}, {"path": "/a", "hash": "1"}],
            ["overlays in another order"],
        ),
        (
            "patches",
            [{"path": "/a", "hash": "1"}, {"path": "/b", "hash": "2"}],
            [{"path": "/a", "hash": "9"}, {"path": "/c", "hash": "3"}],
            ["patch /c new", "patch /b gone", "patch /a changed"],
        ),
        (
            "fixes",
            {"x": "1"},
            {"y": "1"},
            ["umlaan's fix x no longer needed", "umlaan's fix y new"],
        ),
        ("arch", ["um", "i386"], ["um", "x86_64"], ["um/i386 → um/x86_64"]),
        (
            "base",
            {"label": "allnoconfig", "hash": "a"},
            {"label": "/x.config", "hash": "b"},
            ["base configuration allnoconfig → /x.config"],
        ),
        ("base", {"label": "/a", "hash": "a"}, {"label": "/b", "hash": "a"}, []),
        ("modules", False, True, ["modules False → True"]),
        ("recipe", 1, 2, ["umlaan builds in another way now"]),
    ],
)
def test_differences_in_words(field: str, then: Any, now: Any, said: list[str]) -> None:
    assert differences({field: then}, {field: now}) == said


def test_beside_trees_keep_to_usr_src() -> None:
    assert Kernel.model_validate({"beside": {"/usr/src/dvs": "/home/me/dvs"}}).beside
    for place in ("/opt/dvs", "/usr/src/linux", "/usr/src/out/x"):
        with pytest.raises(ValueError, match="below /usr/src"):
            Kernel.model_validate({"beside": {place: "/x"}})


@pytest.mark.parametrize(
    ("texts", "mirror"),
    [
        (["deb http://ftp.de.debian.org/debian bookworm main"], "http://ftp.de.debian.org/debian"),
        (
            [
                "Types: deb\nURIs: http://security.debian.org/debian-security\n",
                "URIs: http://m/debian/",
            ],
            "http://m/debian",
        ),
        (["deb [arch=amd64 signed-by=/k] https://x.org/debian sid main"], "https://x.org/debian"),
        (
            ["# deb http://no.org/debian x main", "deb https://deb.nodesource.com/n nodistro main"],
            "",
        ),
        ([], ""),
    ],
)
def test_the_mirror_is_the_machines_own(texts: list[str], mirror: str) -> None:
    assert apt.mirror_in(texts) == (mirror or apt.DEFAULT_MIRROR)


def test_objects_are_counted_from_makefiles(tmp_path: Any) -> None:
    files = {
        "kernel/Makefile": (
            "obj-y = fork.o exit.o \\\n  panic.o\nobj-$(CONFIG_SMP) += smp.o\nobj-y += sched/\n"
            "ifdef CONFIG_OFF\nobj-y += never.o\nendif\nifeq ($(CONFIG_ON),y)\nobj-y += on.o\n"
            "else\nobj-y += off.o\nendif\n"
        ),
        "kernel/sched/Makefile": "obj-$(CONFIG_ON) += multi.o # text\nmulti-y := a.o b.o\n",
        "arch/um/kernel/Makefile": "obj-y := um.o\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = kobjects.count(str(tmp_path), "um", "x86_64", {"ON": "y", "SMP": "n"})
    # fork exit panic on + archive; a b + archive; um + archive.
    assert found - kobjects._AROUND == 5 + 3 + 2
