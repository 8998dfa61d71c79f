"""Procedure: "compilacion del kernel y utilitarios del HOST", to update-grub and dvk.ko."""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.context import host

from umlaan.operations import hostkernel, kernel, module, reboot
from umlaan.operations.common import lab


@deploy("Host kernel")
def converge() -> None:
    """Built, installed beside the old one, tried once, confirmed."""
    settings = lab().settings(host.name)
    wanted, wish = settings.host_kernel, settings.host_boot
    if wanted is None:
        return
    kernel.built(name=f"Host kernel from {wanted.source}", kernel=wanted)
    hostkernel.installed(name="Host kernel installed", kernel=wanted, wish=wish)
    reboot.into(name="Host kernel running", kernel=wanted, wish=wish, reboot=settings.reboot)


@deploy("Host modules")
def modules() -> None:
    """Built against it, tested, placed, loaded. After the DVS's build: its programs may test."""
    settings = lab().settings(host.name)
    if settings.host_kernel is None:
        return
    names = tuple(one.name for one in settings.host_modules)
    module.removed(name="Host modules that left the data", keep=names)
    for one in host.loop(settings.host_modules):
        name = f"Host module {one.name}"
        module.built(name=name, module=one, kernel=settings.host_kernel)


@deploy("Host kernel away")
def away() -> None:
    """What ``modules`` and ``converge`` put on the machine, unless it runs."""
    module.removed(name="Host modules away")
    hostkernel.removed(name="Host kernel away")


@deploy("Host kernel's verdict")
def verdict() -> None:
    """Where a new kernel was tried and did not stay, the run ends by saying so.

    Of all hosts at once, so that it comes after every node's stages.
    """
    if any(settings.host_kernel for settings in lab().host_settings.values()):
        reboot.told(name="Host kernel tried")
