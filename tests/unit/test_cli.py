"""The umlaan command's own pieces: its verbs, options, messages, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from umlaan.cli import show
from umlaan.cli.app import USAGE, VERBS, code_of
from umlaan.cli.chosen import Chosen
from umlaan.cli.fault import Fault
from umlaan.cli.reach import one_line
from umlaan.cli.runs import pyinfra_words
from umlaan.cli.session import open_session, override
from umlaan.plan.sshto import ssh_to

REPO = Path(__file__).resolve().parents[2]


def umlaan(*words: str, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    """In a process of its own: pyinfra patches the whole process that reads an inventory."""
    code = "from umlaan.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPO), "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def folder_with(tmp_path: Path, inventory: str, data: str = "") -> Path:
    (tmp_path / "inventory.py").write_text(inventory)
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data/all.py").write_text(data)
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    text = import_module(f"umlaan.cli.{verb}").command.__doc__ or ""
    assert re.search(rf"Examples?: (\[bold\])?umlaan {verb}", text)


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(["--help"]) == 0
    out = capsys.readouterr().out
    assert [verb for verb in VERBS if f" {verb} " not in out] == []


def test_a_verb_costs_nothing_until_it_is_used() -> None:
    code = (
        "import sys, umlaan.cli.app; print([m for m in ('pyinfra', 'gevent') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["status", "--nonsense"], "--nonsense"),
        (["exec", "node1"], "Missing argument"),
        (["graph", "-o", "lab.gif"], "its end must be one of .svg, .png, .mmd, .dot"),
        (["schema", "ssh"], "ssh has no schema; these have: status, plan"),
        (["menuconfig", "node1", "--target", "rm -rf"], "must be a make target"),
    ],
)
def test_words_that_make_no_sense(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """64, never 2: for status and plan that is drifted."""
    assert code_of(words) == USAGE
    assert said in capsys.readouterr().err


def test_a_fault_is_one_red_line_and_what_to_do_next(tmp_path: Path) -> None:
    done = umlaan("status", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "umlaan: there is no inventory.py here",
        "  run umlaan in the folder with inventory.py, or name one: umlaan -i PATH …",
    ]


@pytest.mark.parametrize(
    ("inventory", "data", "words", "said"),
    [
        ("uml = ['@uml/node1']\n", "", [], "no lab host; node0 = ['@local'] is the smallest one"),
        (
            "node0 = ['@local']\numl = ['@uml/node1']\n",
            "network = {'mtu': 5}\n",
            [],
            "group_data/all.py:1: network.mtu: Input should be greater than or equal to 576",
        ),
        ("node0 = ['@local']\n", "", ["--data", "kernal=x"], "--data: kernal: unknown key"),
        ("node0 = ['@local']\n", "", ["--data", "novalue"], "--data novalue: must be KEY=VALUE"),
        ("node0 = ['@local']\n", "x = 1 / 0\n", [], "all.py:1: ZeroDivisionError"),
        ("node0 = undefined\n", "", [], "inventory.py:1: NameError"),
    ],
)
def test_bad_data_is_told_with_its_place(
    tmp_path: Path, inventory: str, data: str, words: list[str], said: str
) -> None:
    done = umlaan("status", *words, cwd=folder_with(tmp_path, inventory, data))
    assert done.returncode in (1, USAGE)
    assert said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_node_is_told_those_that_there_are(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "node0 = ['@local']\numl = ['@uml/node1', '@uml/node2']\n")
    done = umlaan("exec", "node7", "--", "true", cwd=folder)
    assert done.returncode == 1
    assert "node7: no such node; the inventory has: node1, node2" in done.stderr


def test_options_before_and_after_the_verb_add_up(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "node0 = ['@local']\n")
    done = umlaan("--data", "first", "status", "--data", "second=1", cwd=folder)
    assert "--data first: must be KEY=VALUE" in done.stderr


def test_override_data_is_read_as_pyinfra_reads_it() -> None:
    assert override(["a.b=512M", "n=3", 'k={"x": true}']) == {
        "a.b": "512M",
        "n": 3,
        "k": {"x": True},
    }
    with pytest.raises(Fault, match="must be KEY=VALUE"):
        override(["=x"])


def test_the_runs_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Fault, match="there is no inventory.py here"):
        pyinfra_words(Chosen(), "deploy.py", ["-y"])
    for name in ("inventory.py", "deploy.py"):
        (tmp_path / name).touch()
    words = pyinfra_words(Chosen(data=("a=1",)), "deploy.py", ["-y"], ["@uml/node1"])
    assert words == [
        *(sys.executable, "-m", "pyinfra", "-y", "--data", "a=1"),
        *("--limit", "@uml/node1", "inventory.py", "deploy.py"),
    ]


def test_one_word_is_a_line_and_several_are_exact() -> None:
    assert one_line(["ls | wc -l"]) == "ls | wc -l"
    assert one_line(["--", "echo", "a b", "$X"]) == "echo 'a b' '$X'"


def test_a_lab_host_is_entered_as_pyinfra_enters_it() -> None:
    data = {
        "ssh_hostname": "10.0.0.9",
        "ssh_user": "root",
        "ssh_port": 2211,
        "ssh_key": "/k",
        "ssh_known_hosts_file": "/kh",
        "ssh_strict_host_key_checking": "no",
    }
    assert ssh_to("lab1", data, terminal=True) == [
        *("ssh", "-t", "-p", "2211", "-i", "/k", "-o", "UserKnownHostsFile=/kh"),
        *("-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "root@10.0.0.9"),
    ]
    assert ssh_to("@ssh/lab1", {})[-1] == "lab1"


def test_a_lab_host_that_is_entered_otherwise_is_told(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "node0 = [('@fake/x', {})]\numl = ['@uml/node1']\n")
    code = (
        "from umlaan.cli.chosen import Chosen; from umlaan.cli.session import open_session; "
        "open_session(Chosen()).via('@fake/x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "this verb knows @local and ssh" in done.stderr, done.stderr


def test_sizes_and_spans_as_a_person_reads_them() -> None:
    assert [show.size(n) for n in (None, 999, 45_300_000, 2_500_000_000)] == [
        *("-", "999 B", "45 MB", "2.5 GB")
    ]
    assert [show.span(n) for n in (None, 42, 200, 7500, 400_000)] == [
        *("-", "42 s", "3 min", "2 h 05", "4 d")
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_back(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(["completion", shell]) == 0
    assert f"_UMLAAN_COMPLETE=complete_{shell}" in capsys.readouterr().out


def test_open_session_wants_an_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Fault, match="there is no other.py here"):
        open_session(Chosen("other.py"))
