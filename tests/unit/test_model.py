"""The model: what a node's number gives, strictness, and where a fault is said to stand."""

from __future__ import annotations

from typing import Any

import pytest

from umlaan.model.base import DataError, with_dotted
from umlaan.model.kernel import Kernel, Source, option_value
from umlaan.model.lab import HostData, Lab, build_lab

HOST = HostData("@local", is_uml=False)


def lab_with(*nodes: HostData, **data: Any) -> Lab:
    return build_lab([HostData("@local", False, data), *nodes])


def test_a_nodes_number_gives_the_procedures_values() -> None:
    node = lab_with(HostData("@uml/node1", True)).nodes[0]
    assert (str(node.address), node.mac) == ("192.168.1.101", "fe:fd:c0:a8:01:65")
    assert (node.tap, node.umid, node.settings.mem) == ("HTAP", "node1", "1024M")
    assert node.root_path == "/var/lib/umlaan/umlaan/nodes/node1/root.ext4"


def test_nodes_differ_in_all_that_must_differ() -> None:
    nodes = lab_with(*(HostData(f"@uml/node{n}", True) for n in (3, 1, 2))).nodes
    assert [n.number for n in nodes] == [1, 2, 3]
    for attribute in ("address", "mac", "tap", "umid", "dir", "root_path", "uml_dir"):
        assert len({str(getattr(n, attribute)) for n in nodes}) == 3, attribute
    assert nodes[1].tap == "HTAP2"


def test_peers_name_node0_and_all_nodes() -> None:
    lab = lab_with(HostData("@uml/node2", True), HostData("@uml/node1", True))
    assert lab.peers() == [
        ("node0", "192.168.1.100"),
        ("node1", "192.168.1.101"),
        ("node2", "192.168.1.102"),
    ]


def test_without_host_dvk_node0_may_be_a_uml_node() -> None:
    lab = build_lab(
        [
            HostData("@local", False, {"host_dvk": False}),
            HostData("@uml/node0", True, {"host_dvk": False}),
        ]
    )
    assert lab.hosts[0].number is None
    assert lab.hosts[0].node0_link is None
    assert lab.nodes[0].tap == "HTAP0"
    assert lab.peers() == [("node0", "192.168.1.100")]


def test_a_dotted_key_changes_one_entry_and_keeps_the_rest() -> None:
    data = {"network": {"bridge": "br7"}, "network.mtu": 1400, "kernel": "ready:/x"}
    assert with_dotted(data)["network"] == {"bridge": "br7", "mtu": 1400}
    assert data["network"] == {"bridge": "br7"}
    assert with_dotted({"kernel": "ready:/x", "kernel.modules": True})["kernel"] == {
        "source": "ready:/x",
        "modules": True,
    }


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [
        ("package:linux-source-6.1", "package", "linux-source-6.1"),
        ("package:linux-source-5.10@bullseye", "suite", "bullseye"),
        ("/usr/src/linux", "directory", "/usr/src/linux"),
        ("/tmp/linux-4.9.88.tar.xz", "tarball", "/tmp/linux-4.9.88.tar.xz"),
        ("ready:/usr/bin/linux.uml", "directory", "/usr/bin/linux.uml"),
        ("ready:package:user-mode-linux", "ready", True),
    ],
)
def test_sources_in_one_word(word: str, field: str, value: object) -> None:
    assert getattr(Source.model_validate(word), field) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "y"), (False, "n"), (None, "n"), ("m", "m"), (100, "100"), ("a b", '"a b"')],
)
def test_option_values_as_config_spells_them(value: object, text: str) -> None:
    assert option_value(value) == text


def test_a_kernels_id_follows_its_data() -> None:
    assert Kernel().id == Kernel().id
    assert Kernel().id != Kernel.model_validate({"options": {"CONFIG_HZ_100": True}}).id


DVK = {"name": "dvk", "source": "/usr/src/dvk"}
MINE = {"name": "mine", "source": "/usr/src/mine"}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"netwrk": {}}, "netwrk: unknown key; allowed: builder, cache_dir"),
    ({"network": {"brigde": "br0"}}, "network.brigde: unknown key; allowed: address, bridge"),
    ({"network": {"bridge": "a b"}}, "network.bridge: String should match"),
    ({"network": {"address": "192.168.1.10/33"}}, "network.address:"),
    ({"network": {"address": "192.168.1.10/31"}}, "/30 or larger"),
    ({"network": {"mtu": 20}}, "network.mtu: Input should be greater than"),
    ({"network": {"namespace": "UPPER"}}, "network.namespace:"),
    ({"network": {"node_base": 255}}, "outside 192.168.1.0/24"),
    ({"kernel": {"sorce": "x"}}, "kernel.sorce: unknown key"),
    ({"host_modules": [DVK, DVK]}, "host_modules: dvk is there twice"),
    (
        {"host_modules": [DVK | {"places": ["/opt/m.ko"]}, {**MINE, "places": ["/opt/m.ko"]}]},
        "host_modules: dvk and mine have one place: /opt/m.ko",
    ),
    ({"host_modules": [DVK | {"places": ["{file}"]}]}, "'{file}': a file's path, from /, {dvs}/"),
    ({"kernel": "linux-source-6.1"}, "must be package:NAME"),
    ({"kernel": {"source": {"url": "https://example.org/x.tar"}}}, "needs sha256"),
    ({"kernel": {"source": {}}}, "exactly one of package, directory, tarball, url"),
    ({"kernel": {"base": "smallconfig"}}, "allnoconfig, defconfig, tinyconfig or the path"),
    ({"kernel": {"options": ["HZ"]}}, "must be a dictionary"),
    ({"kernel": {"options": {"A-B": 1}}}, "not a kernel option's name"),
    ({"kernel": {"overlays": ["ipc"]}}, "must be an absolute path"),
    ({"kernel": {"toolchain": "gcc"}}, "kernel.toolchain"),
    ({"node": {"mem": "lots"}}, "node.mem: must be a number with K, M, G"),
    ({"node": {"transport": "slirp"}}, "node.transport: Input should be 'auto'"),
    ({"node": {"extra_args": ["a b"]}}, "without blanks"),
    ({"node": {"dcid": 99}}, "node.dcid: Input should be less than"),
    ({"node": {"address": "10.0.0.1"}}, "outside 192.168.1.0/24"),
    ({"node": {"address": "192.168.1.10"}}, "address 192.168.1.10 of node1 is br0's too"),
    ({"root": {"device": "/dev/sdb6", "made": {}}}, "give device or made, not both"),
    ({"root": "sdb6"}, "must be an absolute path"),
    ({"dvs": {"dest": "/"}}, "dvs.dest: must be a folder below another one"),
    ({"dvs": {"bits": 16}}, "dvs.bits: Input should be 32 or 64"),
    ({"dvs": {"variants": ["ipx"]}}, "dvs.variants.0: Input should be 'ioctl' or 'ipc'"),
    ({"reboot": "always"}, "reboot: Input should be 'never' or 'when_needed'"),
    ({"state_dir": "/var"}, "removes log, run, ssh and others in it; for example /var/umlaan"),
    ({"state_dir": "/home/me/"}, "state_dir: must be a folder of the lab's own"),
    ({"state_dir": "/var/../root"}, "state_dir: must be a folder of the lab's own"),
    ({"state_dir": "/"}, "for example /umlaan"),
    ({"state_dir": "/a/b", "cache_dir": "/a/b"}, "cache_dir: must stand outside state_dir (/a/b)"),
    ({"state_dir": "/a/b", "cache_dir": "/a/b/c"}, "destroy leaves what is built"),
    ({"state_dir": "//etc"}, "state_dir: must be a folder of the lab's own"),
    ({"state_dir": "/./etc/lab/.."}, "state_dir: must be a folder of the lab's own"),
    ({"state_dir": "/etc/lab"}, "state_dir: must be a folder of the lab's own"),
    ({"state_dir": "/a/b/c", "cache_dir": "/a/b"}, "cache_dir: must not hold state_dir"),
    ({"state_dir": "/srv/my lab"}, "state_dir: must be made of letters, digits and /"),
    ({"state_dir": "/srv/lab;reboot"}, "state_dir: must be made of letters, digits and /"),
    ({"state_dir": "/srv/%n"}, "state_dir: must be made of letters, digits and /"),
    ({"state_dir": "/srv/" + "long/" * 15}, "(112 of 107 bytes); choose a shorter state_dir"),
    # 45 characters.
    ({"state_dir": "/srv/" + "é" * 40}, "(118 of 107 bytes); choose a shorter state_dir"),
    ({"root": "/srv/my root.ext4"}, "root.device: must be without blanks"),
    ({"root": "/srv/a,b"}, "root.device: must be without , and :"),
    ({"root": "/dev/disk/by-path/pci-0000:00:1f.2"}, "make a link to it without them"),
    ({"root": "/srv/../etc/passwd"}, "name the place itself"),
    ({"node": {"disks": ["/srv/a\tdisk"]}}, "node.disks.0: must be without blanks"),
    ({"node": {"hostfs": "/srv/my files"}}, "node.hostfs: must be without blanks"),
    ({"node": {"extra_args": ["x" * 4000]}}, "the kernel's command line has room for"),
    ({"node": {"mem": "0"}}, "node.mem: must be 16M or more"),
    ({"node": {"mem": "٣G"}}, "node.mem: must be a number with K, M, G"),
    ({"node": {"mem": "9" * 5000}}, "node.mem: must be a number with K, M, G"),
    ({"root": {"made": {"size": "1K"}}}, "root.made.size: must be 64M or more"),
    ({"root": {"made": {"packages": ["-oX"]}}}, "the name of a Debian package"),
    ({"dvs": {"cluster": "a;b"}}, "dvs.cluster: String should match"),
    ({"dvs": {"programs": {"init": "./init {}"}}}, "unknown {}"),
    ({"dvs": {"programs": {"init": "./init {node:>99}"}}}, "unknown {node:>99}"),
    ({"dvs": {"programs": {"init": "./init {endpoint}"}}}, "unknown {endpoint}"),
    ({"dvs": {"steps": [{"dir": "../.."}]}}, "dvs.steps.0.dir: must be a path inside the tree"),
    ({"dvs": {"steps": [{"dir": "a", "targets": ["--eval=x"]}]}}, "must be a make target"),
    ({"dvs": {"steps": [{"dir": "a", "variables": {"A": "$(shell x)"}}]}}, "must be without ; &"),
    ({"kernel": {"options": {"A": "$(shell x)"}}}, "without $ and `"),
    ({"host_boot": {"parameters": ["a;reboot"]}}, "one parameter each"),
    # What is whose.
    ({"state_dir": "/srv/lab", "root": "/srv/lab/nodes/mine.ext4"}, "lies in state_dir (/srv/lab)"),
    ({"state_dir": "/srv/lab", "node": {"disks": ["/srv/lab/d"]}}, "node.disks: /srv/lab/d lies"),
    ({"state_dir": "/srv/lab", "node": {"hostfs": "/srv"}}, "node.hostfs: /srv holds state_dir"),
    ({"node": {"hostfs": "/"}}, "node.hostfs: / holds state_dir"),
    ({"state_dir": "/srv/lab", "dvs": "/srv/lab/dvs"}, "dvs.source: /srv/lab/dvs lies in state"),
    ({"state_dir": "/srv/dvs/lab", "dvs": "/srv/dvs"}, "dvs.source: /srv/dvs holds state_dir"),
    ({"cache_dir": "/srv/c", "kernel": "/srv/c/linux"}, "kernel.source: /srv/c/linux lies in"),
    ({"state_dir": "/srv/l", "kernel": {"overlays": ["/srv"]}}, "kernel.overlays: /srv holds"),
    ({"state_dir": "/srv/l", "kernel": {"patches": ["/srv/l/p"]}}, "kernel.patches: /srv/l/p"),
    ({"state_dir": "/srv/l", "measure": {"ledger": "/srv/l/m"}}, "measure.ledger: /srv/l/m lies"),
    ({"lab": "My Lab"}, "lab: String should match pattern"),
    ({"lab_host": "@ssh/nowhere"}, "is no lab host; allowed: @local"),
]


@pytest.mark.parametrize(("data", "message"), BAD)
def test_bad_data_is_told_with_key_and_what_is_allowed(data: dict[str, Any], message: str) -> None:
    rows = [HostData("@local", False, data), HostData("@uml/node1", True, data)]
    with pytest.raises(DataError) as caught:
        build_lab(rows, lambda host, key: f"group_data/all.py:{key}")
    assert message in str(caught.value)
    assert "\n\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("@uml/guest", "is named @uml/nodeN"),
        ("@uml/node01", "is named @uml/nodeN"),
        ("@uml/node²", "is named @uml/nodeN"),
        ("@uml/node٣", "is named @uml/nodeN"),
        ("@uml/node1\n", "is named @uml/nodeN"),
        ("@uml/node" + "9" * 5000, "is named @uml/nodeN"),
        ("@uml/node32", "less than or equal to 31"),
        ("@uml/node0", "number 0 of node0"),
    ],
)
def test_bad_node_names(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_lab([HOST, HostData(name, True)])


def test_two_nodes_never_share_a_root() -> None:
    rows = [HostData(f"@uml/node{n}", True, {"root": "/dev/sdb6"}) for n in (1, 2)]
    with pytest.raises(DataError, match="root @local /dev/sdb6 of node2 is node1's too"):
        build_lab([HOST, *rows])


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(DataError) as caught:
        lab_with(HostData("@uml/node1", True, {"reboot": "x"}), lab="X Y", netwrk=1)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("path", ["/srv/lab", "/home/me/lab", "/var/lib/umlaan", "/root/lab"])
def test_a_folder_of_the_labs_own_is_taken(path: str) -> None:
    rows = [HostData("@local", False, {"state_dir": path})]
    assert build_lab(rows).hosts[0].state_dir == path
