"""How many files a first build will compile: the Kbuild makefiles read with the configuration.

An estimate for a progress line: what it cannot read it leaves out, and nothing depends on it.
"""

from __future__ import annotations

import os
import re

_TOP = "init usr certs kernel mm fs ipc security crypto io_uring block lib drivers sound net virt"
_ARCH = {
    "um": ("um/kernel", "um/drivers", "um/os-Linux", "x86/um", "x86/crypto"),
    "x86": ("x86", "x86/pci", "x86/power", "x86/video"),
}
_ASSIGN = re.compile(r"^([\w$().-]+?)\s*[:+?]?=\s*(.*)$")
_OPTION = re.compile(r"\$[({]CONFIG_(\w+)[)}]")
_IF = re.compile(r"^(ifdef|ifndef|ifeq|ifneq)\s*(.*)$")
# Generators, the link, and what every build makes beside its objects.
_AROUND = 40


def count(tree: str, arch: str, subarch: str, options: dict[str, str]) -> int:
    """About how many CC, AS and AR lines make will print."""
    family = "um" if arch == "um" else "x86"
    todo = [*_TOP.split(), *(f"arch/{part}" for part in _ARCH[family])]
    values = dict(options)
    if subarch == "x86_64" or arch == "x86_64":
        values.setdefault("X86_64", "y")
    seen: set[str] = set()
    total = _AROUND
    while todo:
        folder = os.path.normpath(todo.pop())
        if folder in seen:
            continue
        seen.add(folder)
        text = _makefile(f"{tree}/{folder}")
        if text is None:
            continue
        objects, folders = _objects(_variables(text, values))
        total += len(objects) + 1
        todo += [f"{folder}/{name}" for name in folders]
    return total


def _makefile(folder: str) -> str | None:
    for name in ("Kbuild", "Makefile"):
        try:
            with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            continue
    return None


def _expand(text: str, options: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        found = options.get(match[1], "n")
        return "" if found == "n" else found

    return _OPTION.sub(value, text)


def _holds(word: str, rest: str, options: dict[str, str]) -> bool:
    if word in ("ifdef", "ifndef"):
        name = rest.strip().removeprefix("CONFIG_")
        return (options.get(name, "n") != "n") == (word == "ifdef")
    match = re.match(r"\(([^,]*),([^)]*)\)\s*$", _expand(rest, options).strip())
    if not match or "$" in match[0]:
        return True
    return (match[1].strip() == match[2].strip()) == (word == "ifeq")


def _variables(text: str, options: dict[str, str]) -> dict[str, list[str]]:
    """{variable: words} of the assignments that the configuration reaches."""
    found: dict[str, list[str]] = {}
    open_: list[bool] = []
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.partition("#")[0].strip()
        if match := _IF.match(line):
            open_.append(_holds(match[1], match[2], options))
        elif line.startswith("else"):
            if open_:
                open_[-1] = not open_[-1]
        elif line == "endif":
            if open_:
                open_.pop()
        elif all(open_) and (match := _ASSIGN.match(line)):
            name = _expand(match[1], options)
            found.setdefault(name, []).extend(_expand(match[2], options).split())
    return found


def _objects(variables: dict[str, list[str]]) -> tuple[set[str], set[str]]:
    objects: set[str] = set()
    folders: set[str] = set()
    for kind in ("obj-y", "obj-m", "lib-y"):
        for word in variables.get(kind, []):
            if word.endswith("/"):
                folders.add(word)
            elif word.endswith(".o"):
                stem = word[:-2]
                parts = [
                    part
                    for name in (f"{stem}-objs", f"{stem}-y", f"{stem}-m")
                    for part in variables.get(name, [])
                    if part.endswith(".o")
                ]
                objects |= set(parts) or {word}
    return objects, folders
