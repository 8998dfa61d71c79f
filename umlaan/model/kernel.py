"""A kernel: its source, what is laid over it, its configuration, and how it is built."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from umlaan.model.base import AbsPath, EnvName, MakeValue, Model, OneLine, Sha256
from umlaan.model.toolchain import Toolchain

TARBALL = re.compile(r"\.(tar|tgz|tar\.(gz|xz|bz2|zst))$")

_TAKEN = ("linux", "out", "ccache")


class Source(Model):
    """Where a kernel comes from: exactly one of package, directory, tarball, url or ready.

    As one word: ``package:linux-source-6.1``, ``package:linux-source-5.10@bullseye``,
    ``/usr/src/linux``, ``/tmp/linux-4.9.88.tar.xz``, ``ready:/usr/bin/linux.uml``,
    ``ready:package:user-mode-linux``. A URL needs its sha256, so it is a dictionary.
    """

    package: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9.+-]+$")
    suite: str | None = Field(None, pattern=r"^[a-z][a-z0-9.-]*$")
    directory: AbsPath | None = None
    tarball: AbsPath | None = None
    url: str | None = Field(None, pattern=r"^(https?|file)://[!-~]+$", max_length=2000)
    sha256: Sha256 | None = None
    ready: bool = Field(False, description="the source is a built kernel already")

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        ready = value.startswith("ready:")
        word = value.removeprefix("ready:")
        if word.startswith("package:"):
            package, _, suite = word.removeprefix("package:").partition("@")
            return {"package": package, "suite": suite or None, "ready": ready}
        if not word.startswith("/"):
            raise ValueError(
                "must be package:NAME[@SUITE], /a/directory, /a/file.tar.xz, ready:/a/binary or "
                "ready:package:NAME; a URL is a dictionary with url and sha256"
            )
        kind = "tarball" if TARBALL.search(word) and not ready else "directory"
        return {kind: word, "ready": ready}

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        given = [k for k in ("package", "directory", "tarball", "url") if getattr(self, k)]
        if len(given) != 1:
            raise ValueError("give exactly one of package, directory, tarball, url")
        if self.url and not self.sha256:
            raise ValueError("url: needs sha256, so that what is fetched is what you meant")
        if self.suite and not self.package:
            raise ValueError("suite: only with package")
        return self

    def __str__(self) -> str:
        word = self.directory or self.tarball or self.url or f"package {self.package}"
        return f"{word} of {self.suite}" if self.suite else word


class Kernel(Model):
    """One kernel as data; its age is data too: tuntap or vector, i386 or x86_64."""

    source: Source = Source(package="linux-source-6.1")
    overlays: tuple[AbsPath, ...] = Field((), description="directories laid over it, in order")
    patches: tuple[AbsPath, ...] = Field((), description="files or directories of *.patch, -p1")
    beside: dict[AbsPath, AbsPath] = Field(
        default_factory=dict,
        description="trees that the sources include by a path below /usr/src: {path: directory}",
    )
    arch: Literal["um", "x86_64", "i386"] = "um"
    subarch: Literal["x86_64", "i386"] = "x86_64"
    base: OneLine = Field("allnoconfig", description="allnoconfig, defconfig, tinyconfig or a file")
    fragments: tuple[OneLine, ...] = Field(
        ("templates/kernel/uml-guest.config",), description="files on the machine that runs pyinfra"
    )
    options: dict[str, str] = Field(default_factory=dict, description="single options, last word")
    toolchain: Toolchain = "native"
    make: dict[EnvName, MakeValue] = Field(default_factory=dict, description="variables for make")
    fixes: bool = Field(True, description="apply umlaan's fixes for old kernels, each said")
    modules: bool = Field(
        True, description="what is configured as a module is built and put into the nodes' roots"
    )
    transports: tuple[Literal["tuntap", "vector"], ...] | None = Field(
        None, description="what a ready kernel has; a built one is asked through its configuration"
    )

    @property
    def id(self) -> str:
        """Names this kernel's folder on a lab host: a hash of what the data says, no content."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("beside")
    @classmethod
    def _beside(cls, value: dict[str, str]) -> dict[str, str]:
        for place in value:
            if not place.startswith("/usr/src/") or place.split("/")[3] in _TAKEN:
                raise ValueError(
                    f"{place}: must be a path below /usr/src, not linux, out or ccache there"
                )
        return value

    @field_validator("base")
    @classmethod
    def _base(cls, value: str) -> str:
        if value not in ("allnoconfig", "defconfig", "tinyconfig") and "/" not in value:
            raise ValueError(
                "must be allnoconfig, defconfig, tinyconfig or the path of a configuration file"
            )
        return value

    @field_validator("options", mode="before")
    @classmethod
    def _options(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError('must be a dictionary, for example {"HZ_100": "y"}')
        return {str(k).removeprefix("CONFIG_"): option_value(v) for k, v in value.items()}

    @field_validator("options")
    @classmethod
    def _option_names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise ValueError(f"{name!r} is not a kernel option's name")
        return value


def option_value(value: Any) -> str:
    """An option's value as .config spells it: y, m, n, a number or a quoted string."""
    if value is True:
        return "y"
    if value is False or value is None:
        return "n"
    text = str(value)
    if any(c in "$`" or not c.isprintable() for c in text):
        # make reads the configuration, and would run a $(shell …) in it.
        raise ValueError(f"{text!r}: one line of text, without $ and `")
    if text in ("y", "m", "n") or re.fullmatch(r"-?[0-9]+|0x[0-9a-fA-F]+", text):
        return text
    if re.fullmatch(r'"([^"\\]|\\.)*"', text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
