"""A kernel's modules in a node's root: what stands in /lib/modules, and what must change there."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from umlaan.agent.kmodules import MODULE, STAMP
from umlaan.plan import tree

TOP = "/lib/modules"
# Debian's own package has 105 MB of them: reading them all at each run would take seconds.
_SIZES = f"xargs -0 stat -c '%s %n' <{tree.LIST} 2>/dev/null | grep -E '{MODULE}' | sha256sum; cd /"


class Release(NamedTuple):
    """One folder of /lib/modules: the content that its stamp names, and its files' digest.

    Both are empty where umlaan did not put it there.
    """

    content: str = ""
    sizes: str = ""


def script() -> str:
    """Print ``modules RELEASE CONTENT SIZES`` of each folder, ``- -`` where it is not umlaan's."""
    return f"""\
for d in lib/modules/*/ lib/modules/.*.umlaan-*/; do
    [ -d "$d" ] || continue
    k=- s=-
    if [ -f "$d{STAMP}" ] && [ -f "$d{tree.LIST}" ]; then
        read -r k <"$d{STAMP}"; s=$(cd "$d" && {_SIZES})
    fi
    d=${{d%/}}; echo "modules ${{d##*/}} ${{k:--}} ${{s%% *}}"
done"""


def parse(rest: str) -> tuple[str, Release]:
    """(release, what stands there) of one line behind the word ``modules``."""
    name, content, sizes = rest.rsplit(" ", 2)
    return name, Release() if content == "-" else Release(content, sizes)


@dataclass
class Change:
    """What is to be done in /lib/modules, with every reason; nothing where reasons is empty."""

    reasons: list[str] = field(default_factory=list)
    install: str | None = None
    keep: bool = False
    gone: list[str] = field(default_factory=list)
    left: bool = False


def change(node: str, kernel: dict[str, Any], found: dict[str, Release]) -> Change:
    """Compare: kernel is its stamp on the lab host (release, packed), found what the root holds.

    Releases that umlaan put there for another kernel go; what it did not put there stays.
    """
    out = Change()
    packed, release = kernel["packed"], kernel["release"]
    names = {name for name in found if not _is_left(name) and ".umlaan-kept-" not in name}
    if packed is not None:
        text = _why(packed, release, found.get(release))
        if text:
            out.install, out.keep = release, found.get(release) == Release()
            out.reasons.append(f"{node} {TOP}/{release}: {text}")
    for name in sorted(names - ({release} if packed else set())):
        if found[name].content:
            out.gone.append(name)
            why = "its kernel has no modules" if packed is None else f"its kernel is {release}"
            out.reasons.append(f"{node} {TOP}/{name}: remove umlaan's modules, {why}")
    out.left = any(_is_left(name) for name in found)
    if out.left and not out.install:
        out.reasons.append(f"{node} {TOP}: remove what a killed run left beside the modules")
    return out


def _is_left(name: str) -> bool:
    return name.startswith(".") and name.endswith((".umlaan-new", ".umlaan-old"))


def _why(packed: dict[str, Any], release: str, there: Release | None) -> str | None:
    if there is None:
        return "unpack the kernel's modules, there are none"
    if not there.content:
        return "unpack the kernel's modules; those there are not umlaan's and are kept beside them"
    if there.content != packed["content"]:
        return "unpack the kernel's modules, those there are of another build"
    if there.sizes != packed["sizes"]:
        return "unpack the kernel's modules, some are missing or cut"
    return None


def install_script(change: Change) -> str:
    """Unpack the parcel on standard input beside and rename; a user's own modules go along."""
    assert change.install is not None
    place = f"{TOP}/{change.install}"
    quoted = shlex.quote(place)
    lines = ["set -e", clean_script(change)] if change.gone or change.left else []
    if change.keep:
        lines.append(f"mv {quoted} {quoted}.umlaan-kept-$(date +%Y%m%d-%H%M%S)")
    lines.append(tree.unpack_script(place))
    # Whoever put a module of their own there has it in the index again.
    lines.append(f"if command -v depmod >/dev/null; then depmod {shlex.quote(change.install)}; fi")
    return "\n".join(lines)


def clean_script(change: Change) -> str:
    """Remove umlaan's files of the releases that went; a user's own beside them stay."""
    lines = []
    for name in change.gone:
        place = shlex.quote(f"{TOP}/{name}")
        # The stamp last: a run killed in between finds it and goes on.
        lines.append(
            f"if cd {place}; then grep -zvxF ./{STAMP} {tree.LIST} | xargs -0 -r rm -f; "
            f"rm -f modules.*; rm -f {tree.LIST} {STAMP}; "
            f"find . -mindepth 1 -depth -type d -empty -delete; cd /; "
            f"rmdir {place} 2>/dev/null || true; fi"
        )
    if change.left:
        lines.append(f"rm -rf {TOP}/.*.umlaan-new {TOP}/.*.umlaan-old")
    return "\n".join(lines)
