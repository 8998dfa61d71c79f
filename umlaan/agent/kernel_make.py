"""make for a kernel: its O= folder, its configuration, its objects; each can be interrupted."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from typing import Any

from umlaan.agent import kconfig, kobjects
from umlaan.agent.chamber import CCACHE, OUT, TREE, BuildError, Chamber, say
from umlaan.agent.files import read_json, write_atomic, write_json

UNFINISHED = ".umlaan-unfinished"
# No step of a kernel build writes longer than this at one file without its time moving.
HALF_WRITTEN_S = 60.0
_LIBRARY = ("/usr/include/features.h", "/usr/include/linux/version.h")


def output_folder(spec: dict[str, Any], tree: str, tools: dict[str, str]) -> str:
    """The O= folder: one for each tree, architecture, base and toolchain."""
    named = [os.path.basename(tree), spec["arch"], spec["subarch"], spec["base"], tools["id"]]
    return f"{spec['cache']}/build/{hashlib.sha256(repr(named).encode()).hexdigest()[:16]}"


def recover(out: str) -> None:
    """Make an O= folder safe to go on in after a build that was killed, or a clock set back.

    What was being written when it was killed may be half a file that looks whole to make: all
    that the killed build wrote in its last minute is made again, what is older is kept.
    """
    done, mark = read_json(f"{out}.json"), f"{out}/{UNFINISHED}"
    if isinstance(done, dict) and done["ended"] > time.time() + 2:
        say("the clock was set back since the last build: build afresh")
        shutil.rmtree(out)
    if not os.path.exists(mark):
        return
    written: list[tuple[float, str]] = []
    for folder, folders, files in os.walk(out):
        # These files' times tell make which options changed: they are renewed whole or not at all.
        folders[:] = [f for f in folders if f"{folder}/{f}" != f"{out}/include/config"]
        written += [(os.lstat(f"{folder}/{name}").st_mtime, f"{folder}/{name}") for name in files]
    newest = max(time_ for time_, _ in written)
    if newest > time.time() + 2:
        say("the clock was set back since the last build: build afresh")
        shutil.rmtree(out)
        return
    since = max(os.path.getmtime(mark) - 2, newest - HALF_WRITTEN_S)
    kept = (f"{out}/.config", f"{out}/include/generated/autoconf.h", mark)
    again = [path for time_, path in written if time_ >= since and not path.startswith(kept)]
    for path in again:
        os.unlink(path)
    if again:
        say(f"the last build was cut off: {len(again)} files of it are made again")


def ccache_words(root: str) -> dict[str, str]:
    """How ccache is to work below a root.

    Depend mode takes what a file includes from the list that Kbuild has the compiler write anyway:
    filling an empty cache costs 2 % instead of 40 %. That list leaves the C library's headers out,
    which the user side of UML includes, so what tells their versions is hashed with every file.
    """
    told = [path for path in _LIBRARY if os.path.exists(f"{root}{path}")]
    words = {"CCACHE_DIR": CCACHE, "CCACHE_COMPILERCHECK": "content", "CCACHE_DEPEND": "1"}
    return {**words, "CCACHE_EXTRAFILES": ":".join(told)} if told else words


class Make:
    """make for one kernel, in its chamber."""

    def __init__(self, spec: dict[str, Any], tree: str, out: str) -> None:
        cache, root = spec["cache"], spec["toolchain"]
        ccache = f"{cache}/ccache"
        for folder in (out, ccache):
            os.makedirs(folder, exist_ok=True)
        self.chamber = Chamber(
            cache,
            root=root["dir"] if root else "/",
            personality="i686" if root and root["arch"] == "i386" else None,
            read_only={TREE: tree, **spec["beside"]},
            writable={OUT: out, CCACHE: ccache},
            environment=ccache_words(root["dir"] if root else ""),
        )
        self.words = ["make", "-C", TREE, f"O={OUT}", f"ARCH={spec['arch']}"]
        if spec["arch"] == "um":
            self.words.append(f"SUBARCH={spec['subarch']}")
        if self.chamber.has("ccache"):
            cc, hostcc = (spec["make"].get(k, "gcc") for k in ("CC", "HOSTCC"))
            self.words += [f"CC=ccache {cc}", f"HOSTCC=ccache {hostcc}"]
        taken = ("CC", "HOSTCC") if self.chamber.has("ccache") else ()
        self.words += [f"{k}={v}" for k, v in spec["make"].items() if k not in taken]

    def run(self, *targets: str) -> None:
        """Run make; BuildError with its exit code. What it printed is in the log already."""
        code = self.chamber.run([*self.words, *targets])
        if code:
            raise BuildError(f"make {' '.join(targets)}: exit code {code}")


def configure(spec: dict[str, Any], make: Make, tree: str, out: str) -> dict[str, str]:
    """Base, fragments and options through olddefconfig; the result. BuildError: what got lost."""
    beside = f"{out}/.config.umlaan"
    where = f"KCONFIG_CONFIG={OUT}/.config.umlaan"
    for left in (beside, f"{beside}.old"):
        if os.path.exists(left):
            os.unlink(left)
    if spec["base_text"] is None and not spec["base_file"]:
        say(f"configure: {spec['base']} and {len(spec['options'])} options")
        make.run("-s", where, spec["base"])
        with open(beside, encoding="utf-8") as file:
            text = file.read()
    elif spec["base_file"]:
        with open(spec["base_file"], encoding="utf-8", errors="replace") as file:
            text = file.read()
    else:
        text = spec["base_text"]
    base = kconfig.parse(text)
    # In a choice the last line wins, so what was asked for stands behind the base.
    kept = {k: v for k, v in base.items() if k not in spec["options"]}
    write_atomic(beside, kconfig.render({**kept, **spec["options"]}).encode())
    make.run("-s", where, "olddefconfig")
    with open(beside, "rb") as file:
        made = file.read()
    options = kconfig.parse(made.decode(errors="replace"))
    lost = kconfig.lost(spec["options"], options)
    for name, wanted, _ in [row for row in lost if row[0] in spec["wishes"]]:
        say(f"CONFIG_{name}={wanted} is not possible in this configuration: left as it is")
    lost = [row for row in lost if row[0] not in spec["wishes"]]
    if lost:
        lines = kconfig.explain(lost, tree, options)
        back = ", ".join([f'"{name}": "n"' for name, wanted, _ in lost if wanted != "n"][:3])
        if back:
            lines.append(f"what this kernel can do without is taken back by options = {{{back}}}")
        raise BuildError("options that were asked for did not survive:\n  " + "\n  ".join(lines))
    if spec["base_text"] is not None or spec["base_file"]:
        said = {k: v for k, v in base.items() if k not in spec["options"] and v != "n"}
        for name, wanted, there in kconfig.lost(said, options):
            print(f"base configuration: CONFIG_{name}: {wanted} there, {there} in this kernel")
    config = f"{out}/.config"
    if not os.path.exists(config) or read_bytes(config) != made:
        write_atomic(config, made)
    os.unlink(beside)
    return options


def read_bytes(path: str) -> bytes:
    """A file's content."""
    with open(path, "rb") as file:
        return file.read()


def compile_(spec: dict[str, Any], make: Make, tree: str, out: str, jobs: int) -> dict[str, Any]:
    """make; the release and the options. Says how many files there are to do."""
    recover(out)
    make_new = not os.path.exists(f"{out}/.config")
    mark = f"{out}/{UNFINISHED}"
    os.makedirs(out, exist_ok=True)
    write_atomic(mark, b"")
    try:
        made = _make(spec, make, tree, out, jobs, first=make_new)
    except BuildError:
        # make came to an end of its own: nothing is half written.
        os.unlink(mark)
        raise
    write_json(f"{out}.json", {"ended": time.time()})
    os.unlink(mark)
    return made


def _make(
    spec: dict[str, Any], make: Make, tree: str, out: str, jobs: int, *, first: bool
) -> dict[str, Any]:
    options = configure(spec, make, tree, out)
    # ccache or not, the objects of a first build can be counted before it.
    if first or not os.path.exists(f"{out}/vmlinux"):
        total = kobjects.count(tree, spec["arch"], spec["subarch"], options)
        have = sum(f.endswith(".o") for _, _, files in os.walk(out) for f in files)
        print(f"umlaan-total: {max(total - have, 1)}", flush=True)
    targets = ["linux"] if spec["arch"] == "um" else []
    if options.get("MODULES") == "y" and spec["modules"] and targets:
        targets.append("modules")
    say(f"compile with {jobs} jobs")
    make.run(f"-j{jobs}", *(targets or ["all"]))
    release = make.chamber.ask([*make.words, "-s", "kernelrelease"]).splitlines()[-1]
    return {"release": release, "options": options}
