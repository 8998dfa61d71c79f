"""Hostile words in every text key of the model: each is refused in words, or quoted where it goes.

The keys are read from the model itself, so that a new one is tried too. What a shell is to run by
its very purpose is a Command, and named here; everything else is data, and data never runs.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from umlaan.agent import baseimage, dvs, loaded
from umlaan.model.base import COMMAND, DataError
from umlaan.model.dvs import BuildStep
from umlaan.model.lab import HostData, Lab, Settings, build_lab
from umlaan.plan import access, kconfig, network_files, preflight, root, sshto
from umlaan.plan import dvs as dvs_plan
from umlaan.plan import hostkernel as hostkernel_plan
from umlaan.plan import kernel as kernel_plan
from umlaan.plan import module as module_plan
from umlaan.plan import node as node_plan
from umlaan.plan.dvssides import sides
from umlaan.plan.network_state import Found, wanted_of
from umlaan.plan.templates import FOLDER, unit_word
from umlaan.plan.toolchain import packages

MARK = "hostile"
WORDS = {
    "blank": f"{MARK} word",
    "semicolon": f"{MARK};touch CANARY",
    "substitution": f"$(touch CANARY){MARK}",
    "make's": f"$(shell touch CANARY){MARK}",
    "backquotes": f"`touch CANARY`{MARK}",
    "newline": f"{MARK}\ntouch CANARY",
    "return": f"{MARK}\rtouch CANARY",
    "quote": f"{MARK}';touch CANARY;'",
    "double quote": f'{MARK}";touch CANARY;"',
    "pipe": f"{MARK}|touch CANARY&",
    "percent": f"{MARK}%n%%s",
    "dash": f"-o{MARK}",
    "glob": f"{MARK}*?[a-z]",
    "home": f"~root/{MARK}",
    "variable": f"${{HOME}}{MARK}",
    "unicode": f"{MARK}-ñ²٣\u202e",
    "escape": f"{MARK}\x1b]52;c;eA==\x07",
    "markup": f"[/x][link]{MARK}",
    "names": f"{{}}{{0}}{{node.__class__}}{MARK}",
    "surrogate": f"{MARK}\udcff",
    "NUL": f"{MARK}\0x",
    "long": MARK + "x" * 300_000,
    "up": f"../../../{MARK}",
    "absolute": f"/{MARK}/$(touch CANARY)",
    "empty": "",
}
# Run as they are, by sh or by the shell of a makefile's recipe: their user's own programs.
COMMANDS = {
    "dvs.programs.add_node",
    "dvs.programs.dc",
    "dvs.programs.dc_end",
    "dvs.programs.guest_dc",
    "dvs.programs.guest_init",
    "dvs.programs.guest_prepare",
    "dvs.programs.init",
    "dvs.programs.init_end",
    "dvs.programs.proxy",
    "dvs.programs.rmtbind",
    "dvs.programs.unbind",
    "dvs.steps.command",
    "host_boot.checks",
    "host_modules.tests",
    "measure.programs.buffer",
    "measure.programs.copy_client",
    "measure.programs.copy_server",
    "measure.programs.m3ftp_get",
    "measure.programs.m3ftp_put",
    "measure.programs.m3ftp_server",
    "measure.programs.message_client",
    "measure.programs.message_server",
    "measure.programs.ready",
}
# What a model must have beside the key that is tried.
NEEDED: dict[str, dict[str, Any]] = {
    "host_modules": {"name": "dvk", "source": "/usr/src/dvk"},
    "dvs.steps": {"dir": "dvk-lib"},
    "kernel.toolchain": {"suite": "bookworm"},
    "host_kernel.toolchain": {"suite": "bookworm"},
    "dvs.toolchain": {"suite": "bookworm"},
}


class Key(typing.NamedTuple):
    """One text of the model: its way, whether it is a dictionary's key, and whether it is run."""

    path: tuple[str, ...]
    kind: str
    command: bool

    @property
    def name(self) -> str:
        return ".".join(self.path)


def texts(annotation: Any, metadata: Any = ()) -> Iterator[tuple[str, bool]]:
    """(plain, item, value or key; whether it is a command) of the texts that a type may hold."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        yield from texts(args[0], args[1:])
    elif annotation is str:
        yield "plain", COMMAND in metadata
    elif origin is dict:
        yield from (("key", c) for _, c in texts(args[0]))
        yield from (("value", c) for _, c in texts(args[1]))
    elif origin is tuple:
        yield from (("item", c) for kind, c in texts(args[0]) if kind == "plain")
    else:
        for part in args:
            yield from texts(part, metadata)


def inner(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from inner(part)


def keys(model: type[BaseModel] = Settings, above: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every text; of a model that several keys have (host_kernel, too) those of the first."""
    if model in SEEN:
        return
    SEEN.add(model)
    for name, field in model.model_fields.items():
        path = (*above, name)
        for kind, command in dict.fromkeys(texts(field.annotation, field.metadata)):
            yield Key(path, kind, command)
        for below in dict.fromkeys(inner(field.annotation)):
            yield from keys(below, path)


SEEN: set[type[BaseModel]] = set()
KEYS = list(keys())


def data_of(key: Key, word: str) -> dict[str, Any]:
    """The lab's data with this word at one place."""
    value: Any = {
        "plain": word,
        "item": [word],
        "value": {"NAME": word, "/usr/src/name": word},
        "key": {word: "33:0" if key.path[-1] == "devices" else "/usr/src/x"},
    }[key.kind]
    if key.kind == "value":
        is_path = key.name.endswith((".beside", ".devices"))
        value = {("/usr/src/name" if is_path else "NAME"): word}
        value = {"name": word} if key.name.endswith("dc_config") else value
    for depth in range(len(key.path) - 1, -1, -1):
        name = ".".join(key.path[:depth])
        value = {**NEEDED.get(name, {}), key.path[depth]: value}
        if key.name.startswith("host_modules.parameters") and name == "host_modules":
            value["load"] = True
        if key.name.startswith("host_modules.devices") and name == "host_modules":
            value["load"] = True
        if name in ("host_modules", "dvs.steps"):
            value = [value]
    return {"dvs": {"source": "/usr/src/dvs", "steps": [{"dir": "x"}]}, **value}


def scripts_of(lab: Lab) -> Iterator[tuple[str, str]]:
    """(what, text) of every script and command line of sh that follows from the data."""
    for side in sides(lab).values():
        for path, text in side["files"].items():
            if not path.endswith((".cfg", ".service")):
                yield path, text
        yield "shell", shlex.join(side["shell"])
        yield "init_end", side["init_end"] or ""
    for host in lab.hosts:
        wanted = wanted_of(host, lab.nodes, lab.peers())
        yield "network.sh", network_files.boot_script(wanted)
        yield "packages", " ".join(map(shlex.quote, packages(lab, host.name)))
    for node in lab.nodes:
        yield "ssh", shlex.join(access.ssh_words(node))
        yield "lend", shlex.join(access.lending_words(node))
    for host in lab.hosts:
        spec = hostkernel_plan.spec(
            lab.nodes[0].kernel, lab.host_settings[host.name].host_boot, host
        )
        yield "42_umlaan", spec["files"][hostkernel_plan.SCRIPT]


def units_of(lab: Lab) -> Iterator[str]:
    for host in lab.hosts:
        wanted = wanted_of(host, lab.nodes, lab.peers())
        yield network_files.network_unit(wanted)
        yield network_files.nodes_unit(wanted)
    for side in sides(lab).values():
        yield from (text for path, text in side["files"].items() if path.endswith(".service"))


def quoted(text: str) -> list[str]:
    """What of the hostile word stands where sh would look into it."""
    found, state, index = [], "", 0
    while index < len(text):
        c = text[index]
        if state != "'" and c == "\\":
            index += 2
            continue
        if state == "#":
            state = "" if c == "\n" else state
        elif state == "'":
            state = "" if c == "'" else state
        elif c in "'\"":
            state = "" if state == c else state or c
        elif not state and c == "#" and (index == 0 or text[index - 1] in " \t\n;"):
            state = "#"
        if state != "'" and text.startswith(("touch CANARY", "${HOME}" + MARK), index):
            found.append(text[max(0, index - 40) : index + 40])
        index += 1
    return found


def check(lab: Lab) -> None:
    """What follows from data that were taken."""
    touched = [text for _, text in scripts_of(lab) if MARK in text or "CANARY" in text]
    if touched:
        text = "\n".join(touched)
        done = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
        assert not done.stderr, done.stderr
        assert not quoted(text), quoted(text)
    for text in units_of(lab):
        for line in text.splitlines():
            assert re.match(r"(\[|#|[A-Za-z]+=|$)", line), line
            assert "touch CANARY" not in line
            assert not re.search(r"(?<!%)%[^%]", line.replace("%%", "")), line
    for node in lab.nodes:
        argv = node_plan.command_line(node, "tuntap")
        assert not [a for a in argv if not a.isprintable() or any(c.isspace() for c in a)], argv
        assert all(argv[0] == node.kernel_path for _ in argv)
        made = root.spec(lab.hosts[0], (node,))["nodes"][node.name]["made"]
        if made:
            words = baseimage.mmdebstrap(made, "/target", baseimage.sources(made, "x", "http://a"))
            position = words.index("/target")
            assert not words[position - 1].startswith("-")
            assert all(re.match(r"deb \S+ \S+ main", line) for line in words[position + 1 :])
    settings = lab.host_settings[lab.hosts[0].name]
    for kernel in filter(None, (lab.nodes[0].kernel, settings.host_kernel)):
        merged = kconfig.merge([], kernel.options)
        for name, value in merged.options.items():
            assert re.fullmatch(r'[A-Za-z0-9_]+=(y|m|n|-?\w+|"[^$`\n]*")', f"{name}={value}")
        kernel_plan.spec(kernel, merged.options, "/state", "/cache")
    if settings.dvs:
        spec = dvs_plan.spec(settings.dvs, lab.hosts[0], "/usr/src/dvs")
        for step in spec["variants"].get("ioctl", ()):
            assert not [t for t in step["targets"] if t.startswith("-") or "=" in t]
            assert ".." not in step["dir"].split("/")
    for module in settings.host_modules:
        kernel = kernel_plan.spec(lab.nodes[0].kernel, {}, "/state", "/cache")
        spec = module_plan.spec(module, "/usr/src/dvk", lab.hosts[0], "/cache", kernel, 0)
        for text in loaded.files(spec).values():
            rows = [row for row in text.splitlines() if not row.startswith("#")]
            assert len(rows) <= 1 + len(module.devices), text
            assert not any("CANARY" in row for row in rows)
    for host in lab.hosts:
        preflight.probe_spec(lab, host)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.name}-{key.kind}")
def test_a_hostile_word_is_refused_or_quoted(key: Key) -> None:
    for about, word in WORDS.items():
        data = data_of(key, word)
        rows = [HostData("@local", False, data), HostData("@uml/node1", True, data)]
        try:
            lab = build_lab(rows, lambda host, where: f"group_data/all.py:{where}")
        except DataError as error:
            for line in str(error).splitlines():
                assert line.startswith(f"group_data/all.py:{key.path[0]}: {key.path[0]}"), line
                assert line.isprintable(), (about, line)
                assert len(line) < 800, (about, line)
        else:
            if not key.command:
                check(lab)


def test_what_is_run_is_known_by_name() -> None:
    assert {key.name for key in KEYS if key.command} == COMMANDS


def test_every_kind_of_key_is_tried() -> None:
    names = {key.name for key in KEYS}
    assert {"state_dir", "kernel.source.url", "dvs.steps.dir", "root.made.mirror"} <= names
    assert {"node.extra_args", "dvs.programs.environment", "kernel.options"} <= names
    assert {key.kind for key in KEYS} == {"plain", "item", "key", "value"}
    assert len(KEYS) > 80


@pytest.mark.parametrize("about", [a for a in WORDS if a not in ("surrogate", "NUL")])
def test_the_filters_of_templates_make_one_word(about: str, tmp_path: Path) -> None:
    word = WORDS[about]
    if about != "long":
        text = f"printf %s {shlex.quote(word)}"
        done = subprocess.run(["sh", "-c", text], cwd=tmp_path, capture_output=True, text=False)
        assert done.stdout == word.encode()
        assert not list(tmp_path.iterdir())
    if word.isprintable():
        unit = unit_word(word)
        assert "%" not in unit.replace("%%", "")
        assert "$" not in unit.replace("$$", "")
        assert len(shlex.split(unit)) == 1
    else:
        with pytest.raises(ValueError, match="cannot stand in a unit file"):
            unit_word(word)


# What is no word of the data's: numbers, names by pattern, and what the plan has quoted already.
PLAIN = re.compile(
    r"(lab|network|bridge|description|after|console_root|log \| sh|list|"
    r"(side|peer|dc|join|loop|node|service)\.(number|name|dcid|port|remote_port|index|pattern|"
    r"start_timeout|init|made|command|prepare|proxy_dir|address|prefix|netmask|interface|gateway|read_dc)"
    r"|side\.joins \| length|side\.pauses\[[01]\]|name|value|address|authorised_key|command|dcid"
    r'|" " ~ after if after|" /host" if hostfs|links \| join\(" "\)|link)'
)
SHELL = ("network/network.sh.j2", "dvs/", "guest/umlaan/", "guest/service/", "grub/42")
UNITS = ("network/network.service.j2", "network/nodes.service.j2", "dvs/unit.j2")


@pytest.mark.parametrize(
    "path", sorted(p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*.j2"))
)
def test_every_value_of_a_script_or_unit_is_one_word(path: str) -> None:
    wanted = "unit" if path in UNITS else "sh"
    if not path.startswith((*SHELL, *UNITS)):
        return
    for line in (FOLDER / path).read_text().splitlines():
        for value in re.findall(r"\{\{ (.*?) \}\}", line):
            plain = PLAIN.fullmatch(value) or value.endswith(f"| {wanted}")
            assert plain or line.startswith("#") or '"umlaan: ' in line or 'await "' in line, (
                f"{path}: {value}: {line}"
            )


@pytest.mark.parametrize("name", ["-oProxyCommand=touch X", "@ssh/-oProxyCommand=touch X"])
def test_a_lab_hosts_name_is_no_option_of_sshs(name: str) -> None:
    words = sshto.ssh_to(name, {})
    assert words[-2:] == ["--", name.removeprefix("@ssh/")]
    assert sshto.ssh_to("lab", {"ssh_hostname": "-oX", "ssh_user": "-l"})[-2:] == ["--", "-l@-oX"]


def test_a_boot_script_of_the_host_itself_is_quoted_too() -> None:
    data = {"network": {"namespace": None}}
    lab = build_lab([HostData("@local", False, data), HostData("@uml/node1", True, data)])
    wanted = wanted_of(lab.hosts[0], lab.nodes, lab.peers())
    text = network_files.boot_script(wanted, Found(namespace="root"))
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0


def test_a_make_runs_nothing_of_what_its_variables_hold(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Makefile").write_text("all:\n\t@printf '%s ' $(A)\n\t@echo $(B)\n")
    taken = []
    for about, word in WORDS.items():
        try:
            step = BuildStep.model_validate({"dir": ".", "variables": {"A": word, "B": word}})
        except ValueError:
            continue
        taken.append(about)
        variant = {**step.model_dump(), "targets": [], "variables": step.make_variables("ioctl")}
        spec = {
            "source": str(tree),
            "sha256": None,
            "exclude": [],
            "cache": str(tmp_path / "cache"),
            "state": str(tmp_path / "state"),
            "dest": "/usr/src/dvs",
            "variants": {"ioctl": [{**variant, "command": None}]},
            "buildroot": None,
            "cc": "gcc",
        }
        with contextlib.suppress(SystemExit):
            dvs.build(spec, "ioctl")
    assert {"blank", "dash", "glob", "percent", "markup"} <= set(taken)
    assert not list(tmp_path.rglob("CANARY"))
    assert not Path("CANARY").exists()
