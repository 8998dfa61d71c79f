"""The lab host's own kernel: how it is booted, and the modules that are built against it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from umlaan.model.base import (
    Command,
    EnvName,
    MakeValue,
    Model,
    NameStr,
    OneLine,
    OwnPath,
    OwnTemplate,
    Target,
    known_names,
)


class HostBoot(Model):
    """Procedure: "update-initramfs -c -k 4.9.88; update-grub", and a boot that can go wrong.

    The parameters belong to the new kernel's entry alone: the old kernel's stays as it is.
    """

    parameters: tuple[OneLine, ...] = Field(
        (), description="kernel parameters, for example net.ifnames=0"
    )
    initramfs: bool = True
    checks: tuple[Command, ...] = Field(
        (), description="shell commands on the booted machine; the kernel stays only if all pass"
    )
    timeout: int = Field(600, ge=30, le=7200, description="seconds until the machine must be back")
    panic: int = Field(10, ge=1, le=600, description="seconds from a panic to the next boot")

    @field_validator("parameters")
    @classmethod
    def _no_blank(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if not word or any(c.isspace() or c in "'\"\\`$;&|<>(){}#*?" for c in word):
                # What grub's own shell would read otherwise.
                raise ValueError(
                    f"{word!r}: one parameter each, without blanks and quotes, nor "
                    "; & | < > ( ) { } # * ? $"
                )
        return value


class HostModule(Model):
    """A module outside the tree, built against the host kernel; dvk.ko of the procedure is one.

    Names filled in: {kernel} the kernel's build folder, {dir} the module's; in tests and places
    {ko} the built file, {release} the kernel's, {dvs} the ioctl copy of the DVS, {state_dir}; in
    parameters {debug} the DVS's debug level.
    """

    name: NameStr = Field(..., description="the module's file without .ko, _ written as -")
    source: OneLine = Field(
        ..., description="directory, or kernel:DIR for one inside the kernel's own tree"
    )
    targets: tuple[Target, ...] = ("modules",)
    variables: dict[EnvName, MakeValue] = Field(default_factory=lambda: {"KERNELDIR": "{kernel}"})
    tests: tuple[Command, ...] = Field(
        (), description="host-local tests on the running host kernel, before it is placed"
    )
    places: tuple[OwnTemplate, ...] = Field(
        ("/lib/modules/{release}/extra/{file}",), description="where the tested file is put"
    )
    load: bool = Field(False, description="keep it loaded, after a boot by systemd as well")
    unload: bool = Field(True, description="False: only a reboot takes it out of the kernel")
    parameters: dict[EnvName, OneLine] = Field(
        default_factory=dict, description="what it is loaded with"
    )
    devices: dict[
        OwnPath, Annotated[str, StringConstraints(pattern=r"^[0-9]{1,7}:[0-9]{1,7}$")]
    ] = Field(
        default_factory=dict, description='character devices, MAJOR:MINOR: {"/dev/dvk": "33:0"}'
    )

    @model_validator(mode="after")
    def _loaded(self) -> HostModule:
        if not self.load and (self.parameters or self.devices):
            raise ValueError("parameters, devices: only with load")
        if self.load and not self.places:
            raise ValueError("load: needs a place; it is loaded from the first one")
        return self

    @field_validator("places")
    @classmethod
    def _absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for place in value:
            if (
                not place.startswith(("/", "{dvs}/", "{state_dir}/"))
                or place.endswith("/")
                or ".." in place.split("/")
            ):
                raise ValueError(f"{place!r}: a file's path, from /, {{dvs}}/ or {{state_dir}}/ on")
        return value

    @field_validator("parameters")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for word in value.values():
            if any(c.isspace() or c in "\"'\\#$`;&|<>" for c in word):
                raise ValueError(f"{word!r}: no blanks and quotes, nor # $ ; & | < >")
        known_names(value, {"debug"})
        return value

    @property
    def file(self) -> str:
        """The file that the build leaves: dvk.ko."""
        return f"{self.name.replace('-', '_')}.ko"

    @property
    def in_dvs(self) -> list[str]:
        """Its places in the ioctl copy of the DVS, below that: dvk-mod/dvk.ko."""
        below = [p.removeprefix("{dvs}/") for p in self.places if p.startswith("{dvs}/")]
        return [place.replace("{file}", self.file) for place in below]

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        if value.startswith("kernel:") and not value[7:].lstrip("/"):
            raise ValueError("kernel: needs a folder of the tree, for example kernel:ipc/dvk-mod")
        return value


class Builder(Model):
    """A machine of the inventory's group builder: what is built for a lab host is built there."""

    name: OneLine = Field(..., description="pyinfra's name of the host")
    cache_dir: OwnPath
