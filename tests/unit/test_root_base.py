"""The command that makes a base image: what differs between suites and architectures."""

from __future__ import annotations

from typing import Any

from umlaan.agent import baseimage

LINES = ["deb http://deb.debian.org/debian bullseye main"]


def made(suite: str, arch: str = "amd64") -> dict[str, Any]:
    return {"suite": suite, "arch": arch, "mirror": None, "packages": ["gdb"], "bytes": 1 << 30}


def test_a_suite_before_the_merge_gets_its_links_without_the_package() -> None:
    words = baseimage.mmdebstrap(made("bullseye", "i386"), "/t", LINES)
    include = next(w for w in words if w.startswith("--include="))
    assert "usr-is-merged" not in include and include.endswith(",runit,kmod,gdb")
    assert "--setup-hook=/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh" in words
    assert not [w for w in words if w.startswith("--hook-dir")]


def test_a_suite_after_it_takes_the_package() -> None:
    words = baseimage.mmdebstrap(made("bookworm"), "/t", LINES)
    assert next(w for w in words if w.startswith("--include=")).startswith("--include=usr-is-")
    assert "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr" in words


def test_another_architecture_needs_no_emulator() -> None:
    words = baseimage.mmdebstrap(made("bullseye", "i386"), "/t", LINES)
    assert words.index("--architectures=i386") < words.index("--skip=check/qemu")
