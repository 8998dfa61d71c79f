"""Packages and build roots: only what is missing, nothing where nothing is."""

from __future__ import annotations

from tests.operations.support import commands_of
from umlaan.model.toolchain import BuildRoot
from umlaan.operations import toolchain
from umlaan.plan.toolchain import build_root

ROOT = BuildRoot(suite="bullseye", arch="i386")


def test_installed_packages_are_left_alone() -> None:
    answer = "gcc make\namd64\ngcc installed\nlibc6-dev:amd64 installed\nmake installed"
    assert commands_of(toolchain.packages, ("gcc", "make"), responses={"dpkg-query": answer}) == []


def test_only_the_missing_ones_are_installed() -> None:
    answer = "bc gcc make x:i386 y:amd64\namd64\ngcc installed\nmake config-files"
    said: list[tuple[str, str]] = []
    commands = commands_of(
        toolchain.packages,
        ("bc", "gcc", "make", "x [i386]", "y [amd64]"),
        responses={"dpkg-query": answer},
        reasons=said,
    )
    assert [text for _, text in said] == ["system packages: install bc, make, y"]
    assert len(commands) == 1
    assert "install -y --no-install-recommends bc make y || { apt-get -q update &&" in commands[0]
    assert "DEBIAN_FRONTEND=noninteractive" in commands[0]


def test_a_build_root_that_is_there_is_left_alone() -> None:
    answer = '{"id": "1", "compiler": "gcc 10", "glibc": "2.31"}'
    responses = {"umlaan-agent buildroot --state": answer}
    assert commands_of(toolchain.build_root, ROOT, responses=responses) == []


def test_a_missing_build_root_is_made_once() -> None:
    said: list[tuple[str, str]] = []
    commands = commands_of(
        toolchain.build_root, ROOT, responses={"buildroot --state": "null"}, reasons=said
    )
    spec = build_root(ROOT, "/root/.cache/umlaan")
    assert spec
    assert [text for _, text in said] == ["build root bullseye/i386: make, none there yet"]
    assert commands[0].startswith(f"umlaan-agent spec {spec['dir']}.spec.json ")
    assert commands[1].endswith(f"sh -ec 'umlaan-agent buildroot {spec['dir']}.spec.json'")
