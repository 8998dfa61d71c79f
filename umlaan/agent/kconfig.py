"""The kernel's configuration as text: read it, compare it, say why an option did not survive."""

from __future__ import annotations

import os
import re

_SET = re.compile(r"^CONFIG_(\w+)=(.*)$")
_PROMPT = re.compile(r"^(bool|tristate|string|int|hex|prompt)\s+[\"']")
_UNSET = re.compile(r"^# CONFIG_(\w+) is not set$")


def parse(text: str) -> dict[str, str]:
    """{name without CONFIG_: value} of a .config; "is not set" is n. Other lines do not count."""
    found: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if match := _SET.match(line):
            found[match[1]] = match[2].strip()
        elif match := _UNSET.match(line):
            found[match[1]] = "n"
    return found


def render(options: dict[str, str]) -> str:
    """The options as .config spells them, in the order given."""
    lines = [
        f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}"
        for name, value in options.items()
    ]
    return "\n".join(lines) + "\n"


def same(one: str, other: str) -> bool:
    """Whether two values mean the same: 0x10 and 16 do."""
    if one == other:
        return True
    try:
        return int(one, 0) == int(other, 0)
    except ValueError:
        return False


def lost(wanted: dict[str, str], found: dict[str, str]) -> list[tuple[str, str, str]]:
    """(name, wanted, found) of each option that is not as wanted; n and absent are the same."""
    rows = []
    for name, value in sorted(wanted.items()):
        there = found.get(name, "n")
        if not same(value, there):
            rows.append((name, value, there))
    return rows


def transports(options: dict[str, str]) -> list[str]:
    """Which network transports a UML kernel of this configuration has."""
    names = {"tuntap": "UML_NET_TUNTAP", "vector": "UML_NET_VECTOR"}
    return [name for name, option in names.items() if options.get(option) == "y"]


def definitions(tree: str, names: set[str]) -> dict[str, list[str]]:
    """{name: the lines of its Kconfig entries}; no entry: the tree has no such option."""
    found: dict[str, list[str]] = {}
    heads = {f"{word} {name}": name for name in names for word in ("config", "menuconfig")}
    for folder, folders, files in os.walk(tree):
        folders[:] = [f for f in folders if f not in (".git", "Documentation", "tools")]
        for file in files:
            if not file.startswith("Kconfig"):
                continue
            current = None
            with open(f"{folder}/{file}", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    word = line.strip()
                    if word.startswith(("config ", "menuconfig ")):
                        current = heads.get(" ".join(word.split()))
                        if current:
                            found.setdefault(current, [])
                    elif word in ("help", "---help---"):
                        current = None
                    elif current and word:
                        found[current].append(word)
    return found


def prompted(tree: str, names: set[str]) -> set[str]:
    """Those options that a person can set; the others follow from them."""
    return {
        name
        for name, lines in definitions(tree, names).items()
        if any(_PROMPT.match(line) for line in lines)
    }


def selectors(tree: str, names: set[str], options: dict[str, str]) -> dict[str, list[str]]:
    """{name: the options of this configuration that select it}, for those that any does."""
    found: dict[str, list[str]] = {}
    on = {name for name, value in options.items() if value in ("y", "m")}
    for name, lines in definitions(tree, on).items():
        for line in lines:
            words = line.split()
            if words[0] == "select" and len(words) > 1 and words[1] in names:
                found.setdefault(words[1], []).append(name)
    return {name: sorted(set(by)) for name, by in found.items()}


def explain(
    rows: list[tuple[str, str, str]], tree: str, options: dict[str, str] | None = None
) -> list[str]:
    """One line for each lost option: wanted, found, and what the tree says about it.

    options: the configuration that came out, which tells what selects an unwanted one.
    """
    known = definitions(tree, {name for name, _, _ in rows})
    unwanted = {name for name, wanted, _ in rows if wanted == "n"}
    by = selectors(tree, unwanted, options or {}) if unwanted else {}
    lines = []
    for name, wanted, found in rows:
        depends = [w[11:] for w in known.get(name, ()) if w.startswith("depends on ")]
        if name in by:
            more = f" and {len(by[name]) - 3} more" if len(by[name]) > 3 else ""
            why = f"selected by {', '.join(by[name][:3])}{more}: they go first"
        elif name not in known:
            why = "this kernel has no such option"
        elif depends and wanted != "n":
            why = f"it depends on {' && '.join(depends)}"
        else:
            why = "another option selects or forbids it"
        lines.append(f"CONFIG_{name}: wanted {wanted}, found {found} ({why})")
    return lines
