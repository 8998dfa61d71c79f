"""Configuration: fragments read strictly and merged, results compared, losses explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlaan.agent import kconfig as agent
from umlaan.agent.kernel_state import options_for
from umlaan.plan import kconfig


def test_parse_reads_what_the_kernel_writes() -> None:
    text = (
        '#\n# Automatically generated\n#\nCONFIG_UML=y\n# CONFIG_PCI is not set\nCONFIG_S="a b"\n'
    )
    assert agent.parse(text) == {"UML": "y", "PCI": "n", "S": '"a b"'}


def test_render_is_parse_backwards() -> None:
    options = {"UML": "y", "PCI": "n", "HZ": "100", "S": '"x"'}
    assert agent.parse(agent.render(options)) == options


def test_lost_takes_n_and_absent_for_the_same() -> None:
    wanted = {"A": "y", "B": "n", "C": "n", "D": "0x10", "E": '"a"', "F": "m"}
    found = {"B": "n", "D": "16", "E": '"b"', "F": "y"}
    assert agent.lost(wanted, found) == [("A", "y", "n"), ("E", '"a"', '"b"'), ("F", "m", "y")]


def test_explain_names_dependencies_and_unknown_options(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/Kconfig").write_text(
        'menu "Net"\nconfig VECTOR\n\tbool "v"\n\tdepends on UML && NET\n\tdepends on !OLD\n'
        "choice\n\tconfig PICK\n\t\tbool\nendchoice\n"
    )
    rows = [("VECTOR", "y", "n"), ("PICK", "y", "n"), ("NOPE", "y", "n")]
    assert agent.explain(rows, str(tmp_path)) == [
        "CONFIG_VECTOR: wanted y, found n (it depends on UML && NET && !OLD)",
        "CONFIG_PICK: wanted y, found n (another option selects or forbids it)",
        "CONFIG_NOPE: wanted y, found n (this kernel has no such option)",
    ]


def test_an_option_that_others_select_names_them(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text(
        'config LIB\n\ttristate "lib"\n\tdepends on INET\n'
        'config FS\n\ttristate "fs"\n\tselect LIB\n'
        'config DISK\n\ttristate "disk"\n\tselect LIB if INET\n'
        'config OTHER\n\ttristate "other"\n\tselect LIB\n'
        "config DEFAULTED\n\tbool\n\tdefault y\n\tdepends on INET\n"
    )
    options = {"LIB": "m", "FS": "m", "DISK": "y", "OTHER": "n", "INET": "y", "DEFAULTED": "y"}
    rows = [("LIB", "n", "m"), ("DEFAULTED", "n", "y")]
    assert agent.explain(rows, str(tmp_path), options) == [
        "CONFIG_LIB: wanted n, found m (selected by DISK, FS: they go first)",
        "CONFIG_DEFAULTED: wanted n, found y (another option selects or forbids it)",
    ]


def test_transports_follow_the_configuration() -> None:
    assert agent.transports({"UML_NET_TUNTAP": "y", "UML_NET_VECTOR": "y"}) == ["tuntap", "vector"]
    assert agent.transports({"UML_NET_VECTOR": "n", "UML_NET_TUNTAP": "y"}) == ["tuntap"]
    assert agent.transports({}) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("CONFIG_UML", "x.config:2: 'CONFIG_UML' is neither"),
        ("CONFIG_UML=yes", "x.config:2: 'yes' is not y, m, n"),
        ("UML=y", "x.config:2: 'UML=y' is neither"),
        ('CONFIG_S="open', "x.config:2: '\"open' is not"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(line: str, said: str) -> None:
    with pytest.raises(ValueError, match="^" + __import__("re").escape(said)):
        kconfig.fragment("x.config", f"CONFIG_NET=y\n{line}\n")


def test_a_fragment_may_be_commented() -> None:
    text = "# words\n\n  CONFIG_NET=y  \n# CONFIG_PCI is not set\n# CONFIG_X is off\n"
    assert kconfig.fragment("f", text) == ({"NET": "y", "PCI": "n"}, {})


def test_an_option_may_be_for_some_kernels_only() -> None:
    text = (
        "# [kernels >= 5.19, < 6.2]\nCONFIG_A=y\nCONFIG_B=y\n"
        "# [kernels < 6.16]\n# a word between\nCONFIG_C=y\n"
    )
    found = kconfig.fragment("f", text)
    assert found.options == {"A": "y", "B": "y", "C": "y"}
    assert found.ranges == {"A": ("5.19", "6.2"), "C": ("", "6.16")}
    merged = kconfig.merge([("f", text), ("g", "CONFIG_C=y\n")], {"A": "y"})
    assert merged.ranges == {}, "a later fragment and a single option ask without condition"
    with pytest.raises(ValueError, match=r"f:1: '> 5' is not >= 5\.19 or < 6\.2"):
        kconfig.fragment("f", "# [kernels > 5]\nCONFIG_A=y\n")


@pytest.mark.parametrize(
    ("version", "names"),
    [("5.18.9", "B C"), ("5.19", "A B C"), ("6.1.192", "A B C"), ("6.2", "B C"), ("6.16.1", "B")],
)
def test_a_kernel_is_asked_only_for_what_it_may_have(version: str, names: str) -> None:
    ranges = {"A": ["5.19", "6.2"], "C": ["", "6.16"]}
    spec = {"options": {"A": "y", "B": "y", "C": "y"}, "ranges": ranges}
    assert " ".join(options_for(spec, version)) == names


def test_the_later_fragment_wins_and_both_values_are_said() -> None:
    one, two = ("a.config", "CONFIG_A=y\nCONFIG_B=y\n"), ("b.config", "# CONFIG_A is not set\n")
    wanted, _, conflicts = kconfig.merge([one, two], {"C": "100"})
    assert wanted == {"A": "n", "B": "y", "C": "100"}
    assert [str(c) for c in conflicts] == [
        "CONFIG_A: y in a.config, n in b.config; the later one wins"
    ]


def test_a_single_option_over_a_fragment_is_a_choice_not_a_conflict() -> None:
    rows = [("a", "CONFIG_A=y\n"), ("b", "CONFIG_A=m\n")]
    wanted, _, conflicts = kconfig.merge(rows, {"A": "n"})
    assert wanted == {"A": "n"}
    assert conflicts == []


def test_the_guest_fragment_of_the_project_reads() -> None:
    path = Path(__file__).parents[2] / "templates/kernel/uml-guest.config"
    options = kconfig.fragment(path.name, path.read_text()).options
    assert options["UML_NET_TUNTAP"] == options["UML_NET_VECTOR"] == "y"
