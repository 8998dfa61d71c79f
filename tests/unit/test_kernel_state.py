"""What a kernel depends on and whether it is whole: on real files, without a compiler."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from umlaan.agent import kernel_build, kernel_make, kernel_state
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import write_json
from umlaan.agent.index import hash_file
from umlaan.agent.kernel_state import key_of, state
from umlaan.agent.spec import decode, encode
from umlaan.model.kernel import Kernel
from umlaan.plan import kernel as plan

MAKEFILE = "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 7\nEXTRAVERSION =\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "linux"
    (root / "kernel").mkdir(parents=True)
    (root / "Makefile").write_text(MAKEFILE)
    (root / "kernel/fork.c").write_text("int fork;\n")
    for path in root.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return root


def spec_of(tmp_path: Path, wanted: dict[str, str] | None = None, **data: Any) -> dict[str, Any]:
    data.setdefault("source", str(tmp_path / "linux"))
    kernel = Kernel.model_validate(data)
    made = plan.spec(kernel, wanted or {"NET": "y"}, str(tmp_path / "s"), str(tmp_path / "c"))
    again: dict[str, Any] = json.loads(json.dumps(made))
    return again


def put(spec: dict[str, Any], found: dict[str, Any], text: bytes = b"kernel") -> Path:
    """A kernel as a build would leave it: in the cache, and placed."""
    folder = Path(spec["cache"]) / "kernel" / found["key"]
    folder.mkdir(parents=True)
    (folder / "linux").write_bytes(text)
    (folder / "linux").chmod(0o755)
    (folder / "config").write_text("CONFIG_NET=y\n")
    stamp = {
        **{"key": found["key"], "inputs": found["inputs"], "release": "6.1.7"},
        **{"transports": [], "modules": None, "extra": [], "size": len(text)},
        "sha256": hash_file(str(folder / "linux")),
    }
    write_json(str(folder / "stamp.json"), stamp)
    kernel_build.place(str(folder), spec["dir"])
    return Path(spec["dir"])


def test_a_spec_travels_as_one_word(tmp_path: Path) -> None:
    spec = {"a": ["Ω", 1, None], "text": "x" * 100_000}
    word = encode(spec)
    assert decode(word) == spec
    assert len(word) < 1000
    assert set(word) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=")
    with pytest.raises(ValueError, match="not a spec"):
        decode("aGVsbG8=")


def test_the_key_is_content_not_names(tmp_path: Path, tree: Path) -> None:
    one = {"source": {"label": "a", "hash": "1"}, "overlays": [{"path": "/x", "hash": "2"}]}
    two = {"source": {"label": "b", "hash": "1"}, "overlays": [{"path": "/y", "hash": "2"}]}
    assert key_of(one) == key_of(two)
    assert key_of(one) != key_of({**one, "overlays": [{"path": "/x", "hash": "3"}]})


def test_nothing_there_then_whole_then_each_drift(tmp_path: Path, tree: Path) -> None:
    spec = spec_of(tmp_path)
    found = state(spec)
    assert found["faults"] == []
    assert (found["stamp"], found["previous"], found["artifact"]) == (None, None, "not there")
    assert found["key"]
    assert found["inputs"]["source"]["version"] == "6.1.7"

    home = put(spec, found)
    found = state(spec)
    assert found["artifact"] == "ok"
    assert found["stamp"]["key"] == found["key"]
    assert plan.reasons(found) == []

    (home / "linux").write_bytes(b"ker")
    found = state(spec)
    assert found["artifact"] == "linux is truncated: 3 of 6 bytes"
    assert plan.reasons(found) == [
        "UML kernel: restore from the cache, linux is truncated: 3 of 6 bytes"
    ]
    (home / "linux").write_bytes(b"KERNEL")
    assert state(spec)["artifact"] == "linux is not the one that was built"
    (home / "linux").unlink()
    assert state(spec)["artifact"] == "linux is missing"
    kernel_build.converge(spec, 1)
    assert state(spec)["artifact"] == "ok"
    (home / "linux").chmod(0o644)
    assert state(spec)["artifact"] == "linux is not executable"
    (home / "config").unlink()
    assert state(spec)["artifact"] == "config is missing"
    (home / "stamp.json").write_text("{")
    assert state(spec)["artifact"] == "not there"


def test_a_damaged_cache_is_no_cache(tmp_path: Path, tree: Path) -> None:
    spec = spec_of(tmp_path)
    found = state(spec)
    put(spec, found)
    (Path(spec["dir"]) / "linux").unlink()
    assert state(spec)["cached"] is True
    (Path(spec["cache"]) / "kernel" / found["key"] / "linux").write_bytes(b"k")
    found = state(spec)
    assert found["cached"] is False
    assert plan.reasons(found) == ["UML kernel: rebuild, linux is missing"]


def test_each_changed_input_is_said(tmp_path: Path, tree: Path) -> None:
    first = spec_of(tmp_path, {"NET": "y", "UML_NET_TUNTAP": "n"})
    put(first, state(first))

    other = spec_of(tmp_path, {"NET": "y", "UML_NET_TUNTAP": "y"}, options={"UML_NET_TUNTAP": "y"})
    found = state(other)
    assert found["stamp"] is None
    assert plan.reasons(found) == ["UML kernel: rebuild, CONFIG_UML_NET_TUNTAP n → y"]

    (tree / "kernel/fork.c").write_text("int fork2;\n")
    assert plan.reasons(state(first)) == [f"UML kernel: rebuild, source changed: {tree}"]
    (tree / "kernel/fork.c").write_text("int fork;\n")
    assert plan.reasons(state(first)) == []

    over = tmp_path / "over"
    over.mkdir()
    (over / "a.c").write_text("a")
    layered = spec_of(tmp_path, {"NET": "y", "UML_NET_TUNTAP": "n"}, overlays=[str(over)])
    assert plan.reasons(state(layered)) == [f"UML kernel: rebuild, overlay {over} new"]

    made = spec_of(tmp_path, {"NET": "y", "UML_NET_TUNTAP": "n"}, make={"KCFLAGS": "-O1"})
    assert plan.reasons(state(made)) == ["UML kernel: rebuild, make KCFLAGS unset → -O1"]


def test_on_a_builder_only_a_kernel_of_the_same_source_is_a_forerunner(
    tmp_path: Path, tree: Path
) -> None:
    other = tmp_path / "linux-other"
    tree.rename(other)
    spec = spec_of(tmp_path, source=str(other))
    put(spec, state(spec))
    other.rename(tree)
    (tree / "kernel/fork.c").write_text("int other;\n")
    # In a lab's own folder the other source is what changed.
    assert state(spec_of(tmp_path))["previous"]["inputs"]["source"]["label"] == str(other)
    shared = spec_of(tmp_path)
    shared["dir"] = f"{shared['cache']}/built/kernels/mine"
    theirs = {**spec, "dir": f"{shared['cache']}/built/kernels/theirs"}
    Path(theirs["dir"]).parent.mkdir(parents=True)
    Path(spec["dir"]).rename(theirs["dir"])
    found = state(shared)
    assert found["previous"] is None
    assert plan.reasons(found) == [f"UML kernel: build, {tree}: none there yet"]
    same = {**shared, "dir": f"{shared['cache']}/built/kernels/same"}
    put(same, found)
    again = state({**shared, "options": {"NET": "n"}})
    assert plan.reasons(again) == ["UML kernel: rebuild, CONFIG_NET y → n"]


def test_another_compiler_is_said(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tmp_path)
    monkeypatch.setattr(kernel_state, "compiler", lambda cc, cache: "gcc 12.2.0")
    put(spec, state(spec))
    monkeypatch.setattr(kernel_state, "compiler", lambda cc, cache: "gcc 14.1.0")
    assert plan.reasons(state(spec)) == ["UML kernel: rebuild, compiler gcc 12.2.0 → gcc 14.1.0"]
    # A compiler that is gone is no reason to build a kernel that stands.
    monkeypatch.setattr(kernel_state, "compiler", lambda cc, cache: None)
    assert plan.reasons(state(spec)) == []


def test_a_package_that_is_gone_does_not_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tarball = tmp_path / "linux-source-9.9.tar.xz"
    tarball.write_bytes(b"tar")
    found_file: list[tuple[str, str] | None] = [(str(tarball), "9.9-1")]
    monkeypatch.setattr("umlaan.agent.source.package_file", lambda source, cache: found_file[0])
    spec = spec_of(tmp_path, source="package:linux-source-9.9")
    first = state(spec)
    assert first["key"] is None, "its version is only known once it is unpacked"
    assert plan.reasons(first) == ["UML kernel: build, linux-source-9.9 9.9-1: none there yet"]
    first["inputs"]["source"]["version"] = "9.9.0"
    first["inputs"]["fixes"] = {}
    put(spec, {**first, "key": key_of(first["inputs"])})
    assert plan.reasons(state(spec)) == []
    found_file[0] = None
    assert plan.reasons(state(spec)) == []
    tarball.write_bytes(b"newer")
    found_file[0] = (str(tarball), "9.9-2")
    said = "source changed: linux-source-9.9 9.9-1 → linux-source-9.9 9.9-2"
    assert plan.reasons(state(spec)) == [f"UML kernel: rebuild, {said}"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"source": "/nonexistent/linux"}, "kernel.source: /nonexistent/linux: no such directory"),
        ({"source": "/etc"}, "kernel.source: /etc: has no Makefile"),
        ({"source": "/nonexistent/l.tar.xz"}, "kernel.source: /nonexistent/l.tar.xz: no such file"),
        ({"overlays": ["/nonexistent"]}, "kernel.overlays: /nonexistent: no such directory"),
        ({"patches": ["/nonexistent"]}, "kernel.patches: /nonexistent: no such file or directory"),
        ({"base": "/nonexistent/c"}, "kernel.base: /nonexistent/c: No such file or directory"),
        ({"source": "ready:/nonexistent/uml"}, "kernel.source: /nonexistent/uml: no such file"),
        (
            {"beside": {"/usr/src/dvs": "/nonexistent"}},
            "kernel.beside: /nonexistent: no such directory",
        ),
    ],
)
def test_faults_name_key_and_path(
    tmp_path: Path, tree: Path, data: dict[str, Any], said: str
) -> None:
    spec = spec_of(tmp_path, **data)
    assert state(spec)["faults"] == [said]
    with pytest.raises(BuildError, match=said):
        kernel_build.converge(spec, 1)


def test_a_state_is_cheap_when_nothing_changed(tmp_path: Path, tree: Path) -> None:
    for number in range(3000):
        (tree / f"kernel/f{number}.c").write_text("x" * 2000)
        os.utime(tree / f"kernel/f{number}.c", (1_600_000_000, 1_600_000_000))
    spec = spec_of(tmp_path)
    time.sleep(2.1)
    state(spec)
    # Its own work: a busy machine makes nobody wait here.
    started = time.process_time()
    state(spec)
    assert time.process_time() - started < 0.5


def test_a_ready_binary_is_asked_what_it_is(tmp_path: Path) -> None:
    binary = tmp_path / "linux.uml"
    binary.write_text(
        "#!/bin/sh\ncase $1 in --version) echo 6.1.99;; "
        "--showconfig) echo CONFIG_UML_NET_VECTOR=y;; esac\n"
    )
    binary.chmod(0o755)
    spec = spec_of(tmp_path, source=f"ready:{binary}")
    kernel_build.converge(spec, 1)
    found = state(spec)
    assert found["artifact"] == "ok"
    assert found["stamp"]["release"] == "6.1.99"
    assert found["stamp"]["transports"] == ["vector"]
    assert plan.reasons(found) == []
    assert (Path(spec["dir"]) / "config").read_text() == "CONFIG_UML_NET_VECTOR=y\n"
    binary.write_text("#!/bin/sh\nexit 3\n")
    assert plan.reasons(state(spec)) == [f"UML kernel: take anew, source changed: {binary}"]
    with pytest.raises(BuildError, match="no UML kernel that runs here"):
        kernel_build.converge(spec, 1)
    assert (Path(spec["dir"]) / "linux").exists(), "what was there stays"


def test_a_build_that_was_cut_off_loses_only_what_it_wrote_last(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "include/config").mkdir(parents=True)
    old, early, new = out / "kernel.o", out / "exit.o", out / "fork.o"
    mark = out / kernel_make.UNFINISHED
    for path, ago in ((old, 300), (mark, 200), (early, 100)):
        path.write_text("whole")
        os.utime(path, (time.time() - ago, time.time() - ago))
    for path in (new, out / ".config", out / "include/config/NET"):
        path.write_text("x")
    kernel_make.recover(str(out))
    assert old.exists()
    assert early.exists(), "of the killed build, but not of its last minute"
    assert not new.exists()
    assert (out / ".config").exists()
    assert (out / "include/config/NET").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_a_clock_set_back_builds_afresh(tmp_path: Path, finished: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "fork.o").write_text("x")
    later = time.time() + 3600
    if finished:
        write_json(f"{out}.json", {"ended": later})
    else:
        (out / kernel_make.UNFINISHED).write_text("")
        os.utime(out / "fork.o", (later, later))
    kernel_make.recover(str(out))
    assert not out.exists()


def test_a_tree_beside_that_changes_during_the_build_is_told(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    include = tmp_path / "include"
    include.mkdir()
    (include / "dvs.h").write_text("one\n")
    spec = spec_of(tmp_path, arch="x86_64", beside={"/usr/src/dvs/include": str(include)})
    out = tmp_path / "out"
    out.mkdir()
    for name in ("bzImage", ".config"):
        (out / name).write_text("made")

    def compiled(*_: Any) -> dict[str, Any]:
        # Half of the objects are of the one and half of the other.
        (include / "dvs.h").write_text("two\n")
        return {"release": "6.1.7", "options": {}}

    asked = SimpleNamespace(words=[], chamber=SimpleNamespace(ask=lambda _: "bzImage"))
    monkeypatch.setattr(kernel_build, "prepare_tree", lambda *_: str(tree))
    monkeypatch.setattr(kernel_build, "output_folder", lambda *_: str(out))
    monkeypatch.setattr(kernel_build, "Make", lambda *_: asked)
    monkeypatch.setattr(kernel_build, "compile_", compiled)
    monkeypatch.setattr(kernel_build.kmodules, "staged", lambda *_: None)
    found = kernel_state.gather(spec)
    with pytest.raises(BuildError, match=f"{include} changed while the kernel was built"):
        kernel_build.build(spec, found, 1)
    # What was made is nobody's content: going back to the first must not find it.
    (include / "dvs.h").write_text("one\n")
    assert kernel_state.cached(spec["cache"], kernel_state.gather(spec)["key"]) is None
