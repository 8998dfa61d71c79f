"""Patches worked out beside the tree: applied, skipped, refused with file and hunk."""

from __future__ import annotations

import difflib
from itertools import pairwise
from pathlib import Path

import pytest

from umlaan.agent import patching, trees
from umlaan.agent.chamber import BuildError
from umlaan.agent.kernel_state import fixes_for
from umlaan.plan.fixes import FIXES, fixes

BEFORE = [f"line {n}\n" for n in range(1, 21)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "kernel").mkdir(parents=True)
    (root / "kernel/fork.c").write_text("".join(BEFORE))
    (root / "kernel/exit.c").write_text("int exit;\n")
    return root


def diff(old: list[str], new: list[str], name: str, target: str | None = None) -> str:
    return "".join(difflib.unified_diff(old, new, f"a/{name}", target or f"b/{name}"))


def changed(number: int, text: str) -> list[str]:
    return [text if n == number else line for n, line in enumerate(BEFORE, 1)]


def run(tree: Path, *patches: str) -> trees.Rows:
    folder = tree.parent / "patches"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(patches, 1):
        (folder / f"{number:04}-x.patch").write_text(text)
    rows = trees.rows(str(tree), str(tree.parent / "cache"))
    spec = {"patches": [str(folder)]}
    return patching.apply(spec, [], rows, str(tree.parent / "scratch"))


def content(rows: trees.Rows, name: str) -> str:
    return Path(rows[name].origin).read_text()


def test_patches_apply_in_order_and_the_tree_is_not_touched(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = changed(3, "three\n")
    second = [line.replace("three", "drei") for line in first]
    rows = run(
        tree,
        diff(BEFORE, first, "kernel/fork.c"),
        diff(first, second, "kernel/fork.c"),
    )
    assert content(rows, "kernel/fork.c").splitlines()[2] == "drei"
    assert (tree / "kernel/fork.c").read_text() == "".join(BEFORE)
    assert capsys.readouterr().out.count(": applied") == 2


def test_a_patch_in_the_tree_already_is_skipped_and_said(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = [*BEFORE[:10], "added\n", *BEFORE[10:]]
    (tree / "kernel/fork.c").write_text("".join(after))
    rows = run(tree, diff(BEFORE, after, "kernel/fork.c"))
    assert content(rows, "kernel/fork.c").count("added") == 1
    assert "already in the tree, skipped" in capsys.readouterr().out


def test_patches_of_the_same_lines_are_found_in_the_tree_as_a_series(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [BEFORE, *(changed(3, f"{word}\n") for word in ("three", "drei", "trois"))]
    series = [diff(old, new, "kernel/fork.c") for old, new in pairwise(steps)]
    other = diff([], ["new\n"], "kernel/new.c").replace("--- a/kernel/new.c", "--- /dev/null")
    # Of the four, the first three are there.
    (tree / "kernel/fork.c").write_text("".join(steps[2]))
    (tree / "kernel/new.c").write_text("new\n")
    rows = run(tree, series[0], other, series[1], series[2])
    assert content(rows, "kernel/fork.c") == "".join(steps[3])
    said = [line for line in capsys.readouterr().out.splitlines() if "patch " in line]
    assert ["skipped" in line for line in said] == [True, True, True, False]
    # One that is there in part only is not.
    (tree / "kernel/new.c").write_text("another\n")
    with pytest.raises(BuildError, match=r"0001-x\.patch: kernel/fork\.c: hunk 1 fails"):
        run(tree, series[0], other, series[1], series[2])


def test_a_series_of_which_one_changes_a_file_twice_is_found_as_well(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [BEFORE, *(changed(3, f"{word}\n") for word in ("three", "drei", "trois"))]
    one, two, three = (diff(old, new, "kernel/fork.c") for old, new in pairwise(steps))
    (tree / "kernel/fork.c").write_text("".join(steps[3]))
    rows = run(tree, one, two + three)
    assert content(rows, "kernel/fork.c") == "".join(steps[3])
    said = [line for line in capsys.readouterr().out.splitlines() if "patch " in line]
    assert ["skipped" in line for line in said] == [True, True]


def test_a_failing_hunk_is_named_with_its_file(tree: Path) -> None:
    old = changed(12, "not there\n")
    new = changed(12, "something\n")
    text = diff(["int exit;\n"], ["int out;\n"], "kernel/exit.c") + diff(old, new, "kernel/fork.c")
    with pytest.raises(BuildError, match=r"0001-x.patch: kernel/fork.c: hunk 1 fails at line 9"):
        run(tree, text)
    assert (tree / "kernel/exit.c").read_text() == "int exit;\n"
    assert not list(tree.rglob("*.rej")) + list(tree.rglob("*.orig"))


def test_a_file_that_is_not_there_is_named(tree: Path) -> None:
    with pytest.raises(BuildError, match="kernel/nope.c is not in the tree"):
        run(tree, diff(["a\n"], ["b\n"], "kernel/nope.c"))


def test_files_come_and_go(tree: Path) -> None:
    new = "--- /dev/null\n+++ b/ipc/dvk/new.c\n@@ -0,0 +1 @@\n+int dvk;\n"
    gone = "--- a/kernel/exit.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-int exit;\n"
    rows = run(tree, new, gone)
    assert content(rows, "ipc/dvk/new.c") == "int dvk;\n"
    assert rows["ipc/dvk"].kind == "dir"
    assert "kernel/exit.c" not in rows


def test_a_series_in_one_file_is_applied_and_found_again(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = changed(3, "three\n")
    second = [line.replace("three", "drei") for line in first]
    series = "".join(
        f"From: a\nSubject: a commit\n\ndiff --git a/{name} b/{name}\n{text}-- \n2.39\n\n"
        for name, text in [
            ("kernel/fork.c", diff(BEFORE, first, "kernel/fork.c")),
            ("kernel/fork.c", diff(first, second, "kernel/fork.c")),
        ]
    )
    rows = run(tree, series)
    assert content(rows, "kernel/fork.c").splitlines()[2] == "drei"
    (tree / "kernel/fork.c").write_text("".join(second))
    rows = run(tree, series)
    assert "already in the tree, skipped" in capsys.readouterr().out
    assert content(rows, "kernel/fork.c") == "".join(second)
    (tree / "kernel/fork.c").write_text("something else\n" * 20)
    with pytest.raises(BuildError, match=r"kernel/fork\.c: hunk 1 fails"):
        run(tree, series)


def test_gits_parts_without_a_hunk_are_made_as_well(tree: Path) -> None:
    git = [
        "diff --git a/kernel/exit.c b/kernel/end.c\nsimilarity index 100%\n"
        "rename from kernel/exit.c\nrename to kernel/end.c\n",
        "diff --git a/kernel/new.h b/kernel/new.h\nnew file mode 100644\n"
        "index 0000000000..e69de29bb2\n",
        "diff --git a/kernel/gen.sh b/kernel/gen.sh\nold mode 100644\nnew mode 100755\n",
        "diff --git a/kernel/fork.c b/kernel/fork.c\n",
    ]
    (tree / "kernel/gen.sh").write_text("#!/bin/sh\n")
    rows = run(tree, "".join(git) + diff(BEFORE, changed(3, "three\n"), "kernel/fork.c"))
    assert "kernel/exit.c" not in rows
    assert content(rows, "kernel/end.c") == "int exit;\n"
    assert content(rows, "kernel/new.h") == ""
    assert rows["kernel/gen.sh"].executable
    assert content(rows, "kernel/fork.c").splitlines()[2] == "three"


def test_no_diff_and_no_file_are_said(tree: Path) -> None:
    with pytest.raises(BuildError, match="no unified diff"):
        run(tree, "hello\n")
    with pytest.raises(BuildError, match="no such file or directory"):
        patching.files_of(["/nonexistent/x.patch"])
    empty = tree.parent / "empty"
    empty.mkdir()
    with pytest.raises(BuildError, match="holds no"):
        patching.files_of([str(empty)])


def test_a_path_out_of_the_tree_is_refused(tree: Path) -> None:
    with pytest.raises(BuildError, match="not a path"):
        run(tree, "--- a/../../etc/passwd\n+++ b/../../etc/passwd\n@@ -1 +1 @@\n-a\n+b\n")


OLD_UM = {
    "arch/um/os-Linux/file.c": "#include <sys/stat.h>\n#include <sys/un.h>\n\tmajor(dev);\n",
    "arch/um/os-Linux/signal.c": "{\n\tstruct ucontext *uc = p;\n}\n",
    "arch/x86/um/stub_segv.c": "#include <sysdep/stub.h>\n\tstruct ucontext *uc = p;\n",
    "arch/x86/um/shared/sysdep/ptrace_32.h": (
        "#define A\n#ifndef PTRACE_SYSEMU\n#define PTRACE_SYSEMU 31\n#endif\n"
        "void f(void);\n#ifndef PTRACE_SYSEMU_SINGLESTEP\n"
        "#define PTRACE_SYSEMU_SINGLESTEP 32\n#endif\n"
    ),
}


def test_fixes_for_old_kernels_are_made_once_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    for name, text in OLD_UM.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    wanted = fixes_for({"fixes": list(FIXES)}, "4.9.88", {"glibc": "2.31", "label": ""})
    rows = trees.rows(str(tree), str(tmp_path / "cache"))
    done = patching.apply({"patches": []}, wanted, rows, str(tmp_path / "scratch"))
    assert "<sys/sysmacros.h>" in content(done, "arch/um/os-Linux/file.c")
    assert "ucontext_t *uc" in content(done, "arch/um/os-Linux/signal.c")
    segv = content(done, "arch/x86/um/stub_segv.c")
    assert "#include <sys/ucontext.h>" in segv
    assert "struct ucontext" not in segv
    header = content(done, "arch/x86/um/shared/sysdep/ptrace_32.h")
    assert header == "#define A\nvoid f(void);\n"
    said = capsys.readouterr().out
    assert [f"fix {f['name']}" in said for f in FIXES] == [True] * 3
    # The fixed tree needs none of them a second time.
    again = patching.apply({"patches": []}, wanted, done, str(tmp_path / "again"))
    assert capsys.readouterr().out == ""
    assert trees.tree_hash(again) == trees.tree_hash(done)


@pytest.mark.parametrize(
    ("kernel", "glibc", "names"),
    [
        ("4.9.88", "2.36", ["sysmacros", "ucontext", "ptrace-sysemu"]),
        ("4.9.88", "2.24", []),
        ("4.9.88", "2.26", ["sysmacros", "ucontext"]),
        ("5.10.0", "2.36", []),
        ("6.1.192", "2.36", []),
    ],
)
def test_fixes_keep_to_their_range(kernel: str, glibc: str, names: list[str]) -> None:
    found = fixes_for({"fixes": list(FIXES)}, kernel, {"glibc": glibc, "label": ""})
    assert [fix["name"] for fix in found] == names


@pytest.mark.parametrize(
    ("kernel", "label", "names"),
    [
        ("4.9.88", "bullseye/i386, gcc (Debian 10.2.1-6) 10.2.1 20210110", ["stack-protector"]),
        ("4.9.88", "i686-linux-gnu-gcc (GCC) 12.2.0", ["stack-protector"]),
        ("4.9.88", "gcc (Debian 6.3.0-18) 6.3.0 20170516", []),
        ("4.9.88", "Debian clang version 14.0.6", []),
        ("6.1.192", "gcc (Debian 12.2.0-14) 12.2.0", []),
    ],
)
def test_a_host_kernels_fix_depends_on_gcc(kernel: str, label: str, names: list[str]) -> None:
    found = fixes_for({"fixes": list(fixes("i386"))}, kernel, {"glibc": "2.36", "label": label})
    assert [fix["name"] for fix in found] == names


@pytest.mark.parametrize("rest", ["rest_init", "arch_call_rest_init"])
def test_the_functions_that_set_the_canary_end_by_no_jump(tmp_path: Path, rest: str) -> None:
    tree = tmp_path / "tree"
    texts = {
        "arch/x86/kernel/smpboot.c": "\twmb();\n\tcpu_startup_entry(CPUHP_AP_ONLINE_IDLE);\n}\n",
        "init/main.c": f"\t/* Do the rest */\n\t{rest}();\n}}\n",
    }
    for name, text in texts.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    rows = trees.rows(str(tree), str(tmp_path / "cache"))
    spec = {"patches": []}
    done = patching.apply(spec, list(fixes("x86_64")), rows, str(tmp_path / "scratch"))
    for name, text in texts.items():
        assert content(done, name) == text.replace(";\n}", ";\n\tmb();\n}")
    again = patching.apply(spec, list(fixes("x86_64")), done, str(tmp_path / "again"))
    assert trees.tree_hash(again) == trees.tree_hash(done)
