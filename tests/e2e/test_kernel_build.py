"""The whole way of a kernel, for real, on a small tree of ours that has a kernel's make targets.

Real chamber, real make, real compiler; only the tree is small, so that builds take a second and
can be killed often.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from umlaan.agent import kconfig, kernel_build, kernel_state
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import locked
from umlaan.agent.index import hash_file
from umlaan.model.kernel import Kernel
from umlaan.plan import kernel as plan

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 7
KCONFIG_CONFIG ?= $(O)/.config
OBJECTS = $(patsubst kernel/%.c,$(O)/%.o,$(wildcard kernel/*.c))
allnoconfig:
	@printf '# CONFIG_NET is not set\\n# CONFIG_SMP is not set\\n' >$(KCONFIG_CONFIG)
olddefconfig:
	@sed -i -e '/CONFIG_GONE/d' $(KCONFIG_CONFIG)
linux: $(O)/linux
$(O)/linux: $(OBJECTS) $(O)/.config
	@echo '  LD      linux'
	@(printf '%s\\n' '#!/bin/sh' 'echo $(or $(SAYS),6.1.7-small); exit 0'; cat $^) >$(O)/vmlinux
	@echo "$(KBUILD_BUILD_TIMESTAMP)" >>$(O)/vmlinux
	@cp $(O)/vmlinux $@ && chmod +x $@
$(O)/%.o: kernel/%.c
	@echo '  CC      $*.o'
	@sleep $(or $(SLOW),0)
	@$(CC) -g -c -o $@ $(CURDIR)/$<
menuconfig:
	@cat >>$(O)/.config
kernelrelease:
	@echo $(VERSION).$(PATCHLEVEL).$(SUBLEVEL)-small
"""


KCONFIG = """\
config GONE
\tbool
\tdepends on NEVER
config NET
\tbool "Networking"
config SMP
\tbool "More than one"
config FOLLOWS
\tdef_bool SMP
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "linux"
    (root / "kernel").mkdir(parents=True)
    (root / "Makefile").write_text(MAKEFILE)
    (root / "Kconfig").write_text(KCONFIG)
    for name in ("fork", "exit", "panic", "sched"):
        (root / f"kernel/{name}.c").write_text(f"int {name}(void) {{ return {len(name)}; }}\n")
    return root


def spec_of(base: Path, source: str, wanted: dict[str, str] | None = None, **data: Any) -> Any:
    kernel = Kernel.model_validate({"source": source, **data})
    wanted = {"NET": "y"} if wanted is None else wanted
    made = plan.spec(kernel, wanted, str(base / "state"), str(base / "cache"))
    return json.loads(json.dumps(made))


def built(spec: Any) -> str:
    kernel_build.converge(spec, 2)
    found = kernel_state.state(spec)
    assert found["artifact"] == "ok"
    assert plan.reasons(found) == []
    return hash_file(f"{spec['dir']}/linux")


def test_the_same_inputs_give_the_same_bytes_anywhere(tmp_path: Path, tree: Path) -> None:
    one = built(spec_of(tmp_path / "one", str(tree)))
    two = built(spec_of(tmp_path / "two/other/place", str(tree)))
    assert one == two
    stamp = json.loads(Path(spec_of(tmp_path / "one", str(tree))["dir"], "stamp.json").read_text())
    assert stamp["release"] == "6.1.7-small"
    assert stamp["sha256"] == one


def test_the_users_source_is_never_written_to(tmp_path: Path, tree: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in tree.rglob("*")}
    built(spec_of(tmp_path, str(tree)))
    assert {p: p.stat().st_mtime_ns for p in tree.rglob("*")} == before


def test_an_edit_compiles_one_file(
    tmp_path: Path, tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tmp_path, str(tree))
    first = built(spec)
    assert capfd.readouterr().out.count("  CC ") == 4
    (tree / "kernel/exit.c").write_text("int exit_(void) { return 7; }\n")
    assert plan.reasons(kernel_state.state(spec)) == [
        f"UML kernel: rebuild, source changed: {tree}"
    ]
    second = built(spec)
    said = capfd.readouterr().out
    assert said.count("  CC ") == 1
    assert "source tree: kernel/exit.c renewed" in said
    assert first != second
    (tree / "kernel/exit.c").write_text("int exit(void) { return 4; }\n")
    assert built(spec) == first
    assert "taken from the cache" in capfd.readouterr().out


def test_a_kernel_of_the_cache_waits_for_no_other_build(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tmp_path, str(tree))
    first = built(spec)
    shutil.rmtree(spec["dir"])
    order = tmp_path / "spec.json"
    order.write_text(json.dumps(spec))
    monkeypatch.setattr(kernel_build, "converge", lambda *_: pytest.fail("it was built"))
    with locked(f"{spec['cache']}/lock/kernel", "another lab's build"):
        assert kernel_build.main([str(order)]) == 0
    assert hash_file(f"{spec['dir']}/linux") == first


def test_a_configuration_edited_by_hand_is_written_anew(tmp_path: Path, tree: Path) -> None:
    spec = spec_of(tmp_path, str(tree))
    built(spec)
    (out,) = [p for p in (tmp_path / "cache/build").iterdir() if p.is_dir()]
    (out / ".config").write_text("CONFIG_NONSENSE=y\n")
    other = spec_of(tmp_path, str(tree), {"NET": "y", "SMP": "y"})
    built(other)
    assert kconfig.parse((out / ".config").read_text()) == {"NET": "y", "SMP": "y"}


def test_an_option_that_does_not_survive_is_named(tmp_path: Path, tree: Path) -> None:
    spec = spec_of(tmp_path, str(tree), {"NET": "y", "GONE": "y"})
    with pytest.raises(BuildError, match=r"CONFIG_GONE: wanted y, found n \(it depends on NEVER\)"):
        kernel_build.converge(spec, 1)
    assert not Path(spec["dir"], "stamp.json").exists()


def test_a_wish_that_does_not_survive_is_said_only(
    tmp_path: Path, tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tree / "Makefile").write_text(MAKEFILE.replace("CONFIG_GONE", "CONFIG_STATIC_LINK"))
    built(spec_of(tmp_path, str(tree), {"STATIC_LINK": "y"}))
    assert "CONFIG_STATIC_LINK=y is not possible in this conf" in capfd.readouterr().out
    asked = spec_of(tmp_path, str(tree), {"STATIC_LINK": "y"}, options={"STATIC_LINK": "y"})
    with pytest.raises(BuildError, match="CONFIG_STATIC_LINK: wanted y, found n"):
        Path(asked["cache"], "kernel").rename(tmp_path / "away")
        kernel_build.converge(asked, 1)


def test_layers_lie_in_order_and_go_again(tmp_path: Path, tree: Path) -> None:
    plain = built(spec_of(tmp_path, str(tree)))
    for number, value in ((1, 11), (2, 22)):
        layer = tmp_path / f"overlay{number}/kernel"
        layer.mkdir(parents=True)
        (layer / "fork.c").write_text(f"int fork(void) {{ return {value}; }}\n")
    (tmp_path / "overlay1/kernel/dvk.c").write_text("int dvk;\n")
    patch = tmp_path / "x.patch"
    patch.write_text(
        "--- a/kernel/fork.c\n+++ b/kernel/fork.c\n@@ -1 +1 @@\n"
        "-int fork(void) { return 22; }\n+int fork(void) { return 33; }\n"
    )
    overlays = [str(tmp_path / "overlay1"), str(tmp_path / "overlay2")]
    both = spec_of(tmp_path, str(tree), overlays=overlays, patches=[str(patch)])
    layered = built(both)
    assert layered != plain
    (copy,) = [
        p for p in (tmp_path / "cache/source").glob("tree-*") if (p / "kernel/dvk.c").exists()
    ]
    assert "return 33" in (copy / "kernel/fork.c").read_text()
    turned = spec_of(tmp_path, str(tree), overlays=overlays[::-1], patches=[str(patch)])
    with pytest.raises(BuildError, match=r"x\.patch: kernel/fork\.c: hunk 1 fails at line 1"):
        kernel_build.converge(turned, 1)
    assert not list((tmp_path / "cache/source").glob("*.scratch"))
    assert built(both) == layered
    assert built(spec_of(tmp_path, str(tree))) == plain


def tarball(tree: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tree, "linux-6.1.7")
    return path


def test_a_tarball_and_a_url_build_as_the_directory_does(tmp_path: Path, tree: Path) -> None:
    expected = built(spec_of(tmp_path / "a", str(tree)))
    packed = tarball(tree, tmp_path / "linux-6.1.7.tar.gz")
    assert built(spec_of(tmp_path / "b", str(packed))) == expected
    url = {"url": f"file://{packed}", "sha256": hash_file(str(packed))}
    kernel = Kernel.model_validate({"source": url})
    spec = plan.spec(kernel, {"NET": "y"}, str(tmp_path / "c/s"), str(tmp_path / "c/c"))
    assert built(json.loads(json.dumps(spec))) == expected
    packed.unlink()
    assert plan.reasons(kernel_state.state(spec)) == []


def test_a_url_with_other_bytes_is_refused(tmp_path: Path, tree: Path) -> None:
    packed = tarball(tree, tmp_path / "linux.tar.gz")
    kernel = Kernel.model_validate({"source": {"url": f"file://{packed}", "sha256": "0" * 64}})
    spec = plan.spec(kernel, {}, str(tmp_path / "s"), str(tmp_path / "c"))
    with pytest.raises(BuildError, match=r"sha256 is [0-9a-f]{64}, wanted 0+; nothing"):
        kernel_build.converge(spec, 1)
    assert list((tmp_path / "c/source/url").iterdir()) == []


@pytest.mark.parametrize("content", [b"no tar at all", None])
def test_a_tarball_that_is_no_kernel_is_refused(
    tmp_path: Path, tree: Path, content: bytes | None
) -> None:
    path = tmp_path / "x.tar.gz"
    if content is None:
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo("x/README")
            archive.addfile(info, io.BytesIO(b""))
    else:
        path.write_bytes(content)
    said = "tar: " if content else "no Makefile of a kernel"
    with pytest.raises(BuildError, match=said):
        kernel_build.converge(spec_of(tmp_path, str(path)), 1)
    assert [p.name for p in (tmp_path / "cache/source").iterdir()] == []


def test_a_build_that_fails_keeps_the_kernel_that_was_there(tmp_path: Path, tree: Path) -> None:
    spec = spec_of(tmp_path, str(tree))
    first = built(spec)
    (tree / "kernel/fork.c").write_text("int fork(void) { return nonsense; }\n")
    with pytest.raises(BuildError, match="make -j1 linux: exit code 2"):
        kernel_build.converge(spec, 1)
    assert hash_file(f"{spec['dir']}/linux") == first


def test_a_kernel_that_does_not_run_here_is_not_taken(tmp_path: Path, tree: Path) -> None:
    text = MAKEFILE.replace("'#!/bin/sh'", "'#!/lib/ld-nowhere.so.2'")
    (tree / "Makefile").write_text(text)
    spec = spec_of(tmp_path, str(tree))
    with pytest.raises(BuildError, match="was built, but .*linux: its loader is not on this mach"):
        kernel_build.converge(spec, 1)
    assert not Path(spec["dir"], "linux").exists()


def test_kernels_of_no_node_go_but_not_while_they_run(tmp_path: Path, tree: Path) -> None:
    old, other = spec_of(tmp_path, str(tree)), spec_of(tmp_path, str(tree), make={"X": "1"})
    third = spec_of(tmp_path, str(tree), make={"X": "2"})
    for spec in (old, other):
        kernel_build.converge(spec, 2)
    os.unlink(f"{other['dir']}/linux")
    shutil.copy("/bin/sleep", f"{other['dir']}/linux")
    with subprocess.Popen([f"{other['dir']}/linux", "60"]) as running:
        try:
            third["keep"] = [third["id"]]
            kernel_build.converge(third, 2)
        finally:
            running.kill()
    assert {p.name for p in Path(third["dir"]).parent.iterdir()} == {other["id"], third["id"]}
    kernel_build.prune(third)
    assert {p.name for p in Path(third["dir"]).parent.iterdir()} == {third["id"]}


def test_the_menu_changes_a_copy_and_gives_a_fragment(tmp_path: Path, tree: Path) -> None:
    spec = spec_of(tmp_path, str(tree), {"NET": "y", "HZ": "100"})
    first = built(spec)
    path, fragment = tmp_path / "spec.json", tmp_path / "mine.config"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-S", "-m", "umlaan.agent", "menuconfig", str(path), str(fragment)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    typed = "# CONFIG_NET is not set\nCONFIG_SMP=y\nCONFIG_FOLLOWS=y\n"
    done = subprocess.run(command, env=environment, input=typed, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "2 options differ", done.stderr
    assert kconfig.parse(fragment.read_text()) == {"NET": "n", "SMP": "y"}
    assert built(spec) == first
    assert not list((tmp_path / "cache/build").glob("menuconfig-*"))


def test_no_network_and_a_read_only_tree_in_the_chamber(tmp_path: Path, tree: Path) -> None:
    text = MAKEFILE.replace(
        "linux: $(O)/linux",
        "linux: alone $(O)/linux\nalone:\n"
        "\t@! touch $(CURDIR)/kernel/x 2>/dev/null\n"
        "\t@test $$(grep -c : /proc/net/dev) = 1\n"
        "\t@test $(CURDIR) = /usr/src/linux",
    )
    (tree / "Makefile").write_text(text)
    built(spec_of(tmp_path, str(tree)))
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert str(tmp_path) not in mounts.read()


def test_an_image_that_leads_to_the_machines_files_is_no_image(tmp_path: Path, tree: Path) -> None:
    text = MAKEFILE.replace("linux: $(O)/linux", "linux:\n\t@ln -sf /etc/os-release $(O)/linux\nx:")
    (tree / "Makefile").write_text(text)
    with pytest.raises(BuildError, match="make left no linux"):
        built(spec_of(tmp_path, str(tree)))


def test_a_run_killed_anywhere_is_finished_by_the_next(tmp_path: Path, tree: Path) -> None:
    expected = built(spec_of(tmp_path / "clean", str(tree)))
    packed = tarball(tree, tmp_path / "linux-6.1.7.tar.gz")
    spec = spec_of(tmp_path / "killed", str(packed), make={"SLOW": "0.2"})
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-S", "-m", "umlaan.agent", "kernel-build", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = 0
    for turn in range(60):
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Each time a little later, until one comes to its end.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05 + turn * 0.07)
            break
        killed += 1
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert killed >= 5
    assert built(spec) == expected
    kept = {p.name for p in Path(spec["cache"], "kernel").iterdir()}
    assert not [name for name in kept if name.endswith(".new")]
