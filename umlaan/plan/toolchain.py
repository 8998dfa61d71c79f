"""Which Debian packages a lab host needs, and where a build root of its own stands."""

from __future__ import annotations

import hashlib
from typing import Any

from umlaan.model.kernel import Kernel
from umlaan.model.lab import Lab
from umlaan.model.toolchain import BuildRoot, Toolchain

# gcc alone recommends libc6-dev; it is named so that nothing depends on recommendations.
NATIVE = (
    *("bc", "bison", "ccache", "flex", "gcc", "kmod", "libc6-dev", "make", "patch"),
    "xz-utils",
)
# A kernel image is compressed by the program that its configuration names; xz is the usual one.
COMPRESSORS = ("lz4", "xz-utils", "zstd")
IN_BUILD_ROOT = (
    *("bc", "bison", "ccache", "flex", "gcc", "kmod", "libc6-dev", "libelf-dev"),
    *("libssl-dev", "make", "perl", "python3", *COMPRESSORS),
)
# ip, nsenter, unshare, tar, bwrap: what every lab host uses, whatever it builds.
ALWAYS = ("bubblewrap", "iproute2", "iputils-ping", "openssh-client", "util-linux")
# What a 32-bit kernel's linux needs to run on a 64-bit host: loader and C library, one package.
RUN_32_BIT = "libc6-i386 [amd64]"
BUILD_KERNEL = (*COMPRESSORS, "cpio", "kmod", "libelf-dev", "libssl-dev", "perl", "rsync")
INSTALL_KERNEL = ("initramfs-tools", "kmod")


def packages(lab: Lab, host: str) -> tuple[str, ...]:
    """The packages that a lab host or builder needs for its part of the lab, sorted."""
    needed = set(ALWAYS)
    for served in _built_by(lab, host):
        needed |= _to_build(lab, served)
    if host not in [h.name for h in lab.hosts]:
        return tuple(sorted(needed))
    if lab.host_settings[host].host_kernel:
        needed |= set(INSTALL_KERNEL)
    for node in lab.nodes_on(host):
        if _needs_32_bit(node.kernel):
            needed.add(RUN_32_BIT)
        if node.root.made:
            needed |= {"e2fsprogs", "mmdebstrap"}
    return tuple(sorted(needed))


def _built_by(lab: Lab, host: str) -> tuple[str, ...]:
    """The lab hosts for which a machine builds: itself without a builder, those that name it."""
    found = []
    for one in lab.hosts:
        which = lab.builder(one.name)
        if (which.name if which else one.name) == host:
            found.append(one.name)
    return tuple(found)


def _to_build(lab: Lab, host: str) -> set[str]:
    """What is needed to build one lab host's kernels and its DVS."""
    needed: set[str] = set()
    nodes = lab.nodes_on(host)
    settings = lab.host_settings[host]
    kernels = [n.kernel for n in nodes]
    if settings.host_kernel:
        kernels.append(settings.host_kernel)
        needed |= set(BUILD_KERNEL)
    for kernel in kernels:
        needed |= _for_kernel(kernel)
    if nodes and settings.dvs:
        if settings.dvs.toolchain != "native":
            needed.add("mmdebstrap")
        else:
            needed |= {"gcc", "libc6-dev", "make"}
        if settings.dvs.bits == 32:
            needed.add(RUN_32_BIT if settings.dvs.toolchain != "native" else "gcc-multilib")
    return needed


def _for_kernel(kernel: Kernel) -> set[str]:
    if kernel.source.ready:
        return {RUN_32_BIT} if _needs_32_bit(kernel) else set()
    needed = {"xz-utils"}
    if kernel.patches:
        needed.add("patch")
    if kernel.arch == "um" and _needs_32_bit(kernel):
        needed.add(RUN_32_BIT)
    if kernel.source.url:
        needed.add("curl")
    if kernel.toolchain == "native":
        needed |= set(NATIVE)
    else:
        needed.add("mmdebstrap")
    return needed


def _needs_32_bit(kernel: Kernel) -> bool:
    """A dynamic i386 linux needs i386's loader and C library; a static one needs nothing."""
    static = "y" if kernel.toolchain != "native" and not kernel.source.ready else "n"
    return kernel.subarch == "i386" and kernel.options.get("STATIC_LINK", static) != "y"


def build_root(toolchain: Toolchain, cache_dir: str) -> dict[str, Any] | None:
    """The agent's description of a build root, its folder named by its key; None for native."""
    if not isinstance(toolchain, BuildRoot):
        return None
    wanted = sorted({*IN_BUILD_ROOT, *toolchain.packages})
    named = [toolchain.suite, toolchain.arch, toolchain.mirror or "", *wanted]
    key = hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]
    return {
        "dir": f"{cache_dir}/buildroot/{key}",
        "label": f"{toolchain.suite}/{toolchain.arch}",
        "suite": toolchain.suite,
        "arch": toolchain.arch,
        "mirror": toolchain.mirror,
        "packages": wanted,
    }


def build_roots(lab: Lab, host: str) -> tuple[BuildRoot, ...]:
    """The distinct build roots of the kernels and the DVS that a machine builds."""
    chains: list[Toolchain] = []
    for served in _built_by(lab, host):
        chains += [n.kernel.toolchain for n in lab.nodes_on(served)]
        settings = lab.host_settings[served]
        if settings.host_kernel:
            chains.append(settings.host_kernel.toolchain)
        if settings.dvs and chains:
            chains.append(settings.dvs.toolchain)
    return tuple(dict.fromkeys(c for c in chains if isinstance(c, BuildRoot)))
