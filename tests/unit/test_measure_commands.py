"""The measured programs' commands; a bench made of the lab's model and the machine's answers."""

import json
import subprocess
from dataclasses import replace

import pytest

from umlaan.cli.fault import Fault
from umlaan.cli.measure import settings
from umlaan.measure import assemble
from umlaan.measure.bench import Bench, CaseFailed, Pair, Peer
from umlaan.measure.cases import Case, Place
from umlaan.measure.ledger import End, Kernel, Parameters
from umlaan.measure.programs import Endpoints, Tree
from umlaan.measure.runner import measure_case
from umlaan.measure.sides import Done, SideError
from umlaan.measure.steps import bind
from umlaan.model.dvs import Dvs, Programs
from umlaan.model.lab import HostData, build_lab
from umlaan.model.measure import Measure, MeasurePrograms
from umlaan.plan import exchanges

HOST, GUEST = Place(0, "host"), Place(1, "uml")


class Scripted:
    """A side that answers by what a script contains, and remembers what it was asked."""

    def __init__(self, name, answers=None):
        self.name, self.answers, self.scripts = name, answers or {}, []

    def run(self, script, timeout):
        self.scripts.append(script)
        for part, answer in self.answers.items():
            if part in script:
                if isinstance(answer, Exception):
                    raise answer
                return answer if isinstance(answer, Done) else Done(0, answer, 0.1)
        return Done(0, "", 0.1)


def case(test, server=HOST, client=GUEST, **parameters):
    return Case(test, server, client, Parameters(**parameters), repeats=2, warmup=0)


def bench(measure=None, programs=None, **sides):
    trees = {
        0: Tree("/state/dvs/ioctl", "/proc/dvs", "/state/run", dc_pid=77, nsenter=True),
        1: Tree("/usr/src/dvs", "/proc/dvs"),
    }
    peers = {}
    for number, tree in trees.items():
        end = End(
            node=number,
            name=f"node{number}",
            place="host" if number == 0 else "uml",
            kernel=Kernel(release="4.9.88"),
        )
        side = sides.get(end.name) or Scripted(end.name)
        peers[number] = Peer(side, end, f"192.168.1.10{number}", tree)
    return Bench(
        measure or Measure(),
        Dvs(programs=programs or Programs()),
        peers,
        run="r",
        lab="lab",
        host="@local",
        load=lambda: 0.0,
    )


def test_the_procedures_commands_word_by_word():
    real = MeasurePrograms(environment={}, loop_nodes=(0, 1), buffer="true")
    made = bench(Measure(programs=real))
    p = real
    loop = Pair.of(made, case("copy", size=65536, count=10, children=1))
    assert loop.at_server.program(p.loop_dir, p.copy_server) == (
        "cd /state/dvs/ioctl/dvk-proxies/test && nsenter -p -t 77 -- ./loop_copy_server 1 10 65536"
    )
    assert loop.at_client.program(p.loop_dir, p.copy_client) == (
        "cd /usr/src/dvs/dvk-proxies/test && ./loop_copy_client 1"
    )
    get = Pair.of(made, case("m3ftp-get", buffer=65536, file=10))
    assert get.at_server.bind() == (
        "cd /state/dvs/ioctl/dvk-tests && nsenter -p -t 77 -- ./test_rmtbind 0 21 1 m3ftp_client"
    )
    assert get.at_client.bind() == (
        "cd /usr/src/dvs/dvk-tests && ./test_rmtbind 0 20 0 m3ftp_server"
    )
    names = {"remote_file": "server.txt", "local_file": "client.txt"}
    assert get.at_client.program(p.m3ftp_dir, p.m3ftp_get, **names).endswith(
        "./m3ftp -g 0 20 21 server.txt client.txt"
    )
    turned = Pair.of(made, case("m3ftp-put", GUEST, HOST, buffer=65536, file=10))
    assert turned.at_server.program(p.m3ftp_dir, p.m3ftp_server).endswith("./m3ftpd 0 21")
    assert turned.at_client.program(p.m3ftp_dir, p.m3ftp_put, **names).endswith(
        "nsenter -p -t 77 -- ./m3ftp -p 0 21 20 server.txt client.txt"
    )
    assert turned.at_client.bind().endswith("./test_rmtbind 0 21 1 m3ftp_server")


def test_the_sample_trees_environment_is_set_where_it_means_something():
    made = bench(programs=Programs(environment={"DVS_STATE": "{state}", "X": "a b"}))
    loop = Pair.of(made, case("message", count=5, children=2))
    command = loop.at_client.program("d", "./loop_sr_client {children} {count}")
    assert command == (
        "cd /usr/src/dvs/d && env DVS_STATE=/proc/dvs 'X=a b' DVS_RMTNODE=0 ./loop_sr_client 2 5"
    )
    get = Pair.of(made, case("m3ftp-get", buffer=65536, file=10))
    assert "M3FTP_BUFFER=65536" in get.at_server.program("d", "./m3ftpd")
    assert "DVS_RMTNODE=1" in get.at_server.program("d", "./m3ftpd")


def test_programs_of_the_tree_are_told_the_address_to_listen_on():
    made = bench(programs=Programs(environment={"DVS_ADDRESS": "{address}"}))
    loop = Pair.of(made, case("message", count=5, children=2))
    for side, peer in ((loop.at_server, loop.server), (loop.at_client, loop.client)):
        assert f"env DVS_ADDRESS={peer.address} " in side.program("d", "./loop")


def test_loop_programs_may_stand_in_a_folder_a_pair():
    made = bench(Measure(programs=MeasurePrograms(loop_dir="t-{server}-{client}", environment={})))
    turned = Pair.of(made, case("message", GUEST, HOST, count=1, children=1))
    command = turned.at_server.program("t-{server}-{client}", "./loop_r-s_server 1 1")
    assert command == "cd /usr/src/dvs/t-1-0 && ./loop_r-s_server 1 1"


def test_a_loop_server_is_ready_when_all_its_endpoints_are_bound():
    pair = Pair.of(bench(), case("message", count=1, children=1))
    parts = pair.at_server.ready().split(" && ")
    assert [part.split()[2] for part in parts] == ["e=0", "e=2"]


def test_every_endpoint_that_the_loops_bind_is_known():
    found = Endpoints.of(case("message", count=1, children=2), Measure())
    assert (found.server_all, found.client_all) == ((0, 2, 4), (1, 3, 5))


def test_ready_looks_for_the_bound_endpoint():
    get = Pair.of(bench(), case("m3ftp-get", buffer=65536, file=10))
    assert get.at_server.ready() == (
        "awk -v e=20 '$3 == e {found = 1} END {exit !found}' /proc/dvs/DC0/procs"
    )


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (Done(21, " dvk_rmtbind m3ftp_client with p_nr=21\n", 0.1), None),  # main is void upstream
        (Done(0, "ERROR: test_rmtbind.c:main:38: rcode=-310\n", 0.1), "rcode=-310"),
        (Done(5, "BIND ERROR ret=-337: endpoint 21\n", 0.1), "ret=-337"),
        (Done(126, "sh: ./test_rmtbind: Permission denied\n", 0.1), "Permission denied"),
        (Done(124, "", 30.0, timed_out=True), "no output"),
    ],
)
def test_rmtbind_is_judged_by_its_words(done, message):
    side = Scripted("node1", {"test_rmtbind": done})
    pair = Pair.of(bench(node1=side), case("m3ftp-get", buffer=65536, file=10))
    if message is None:
        bind(pair.client, pair.at_client)
        return
    with pytest.raises(CaseFailed, match=f"node1: test_rmtbind: .*{message}"):
        bind(pair.client, pair.at_client)


PINGED = """64 bytes from 192.168.1.100: icmp_seq=1 ttl=64 time=0.2 ms
2 packets transmitted, 2 received, 0% packet loss, time 20ms
rtt min/avg/max/mdev = 0.200/0.300/0.400/0.100 ms
"""


def test_a_row_says_what_was_measured():
    made = bench(node1=Scripted("node1", {"ping": PINGED}))
    made.peers = {**made.peers, 1: replace(made.peers[1], transport="tuntap", mtu=1400)}
    row = measure_case(made, case("ping", size=56, count=2))
    assert (row.verdict, row.figures.values, row.unit) == ("ok", (0.3, 0.3), "ms/exchange")
    assert (row.way.transport, row.way.mtu, row.tree) == ("tuntap", 1400, "examples/sample-dvs")
    assert row.samples == (0.2, 0.2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (PINGED.replace("2 received", "1 received"), "repeat 1 of 2: lost: 1 of 2"),
        (Done(127, "sh: ping: not found", 0.1), "no ping there; install iputils-ping"),
        (Done(2, "ping: node9: Name or service not known", 0.1), "ping: node9: Name or service"),
        (SideError("node1: ssh: Connection refused"), "repeat 1 of 2: node1: ssh: Connection"),
    ],
)
def test_what_goes_wrong_is_a_failed_row(answer, reason):
    made = bench(node1=Scripted("node1", {"ping": answer}))
    row = measure_case(made, case("ping", size=56, count=2))
    assert (row.verdict, row.figures, row.samples) == ("failed", None, ())
    assert reason in row.reason


@pytest.mark.parametrize(
    ("argv", "transport"),
    [
        (["linux", "eth0=tuntap,HTAP,fe:fd:c0:a8:01:65"], "tuntap"),
        (["linux", "vec0:transport=tap,ifname=HTAP"], "vector"),
        (["linux", "mem=64M"], "unknown"),
    ],
)
def test_the_transport_is_read_from_the_running_command_line(argv, transport):
    assert assemble.transport_of(argv) == transport


def lab(**data):
    hosts = [HostData("@local", False, data), HostData("@uml/node1", True, data)]
    return build_lab(hosts)


UP = {
    "running": True,
    "answers": True,
    "record": {"argv": ["linux", "eth0=tuntap,HTAP"], "kernel_sha256": "a" * 64},
}


@pytest.fixture
def machine(monkeypatch):
    """What the lab host and the guest say, by the command they are asked."""
    manifest = {"a": ["file", 0o644, "x"]}
    stamp = json.dumps({"manifest": manifest, "sha256": "a" * 64})
    answers = {
        "uname -r": "\n--- release ---\n6.1.9-uml\n\n--- mtu ---\n1400\n",
        "DC0.sh": "\n--- release ---\n6.12.1-host\n\n--- dc ---\nexport DC0=4711\n"
        f"\n--- stamp ---\n{stamp}\n",
        "sha256sum": f"\n--- config ---\n{'c' * 64}  /x/config\n\n--- built ---\n{stamp}\n"
        f"\n--- stamp ---\n{stamp}\n",
        "nproc": "2\n",
        "loadavg": "0.75 0.5 0.4 1/99 1234\n",
    }
    order = ["DC0.sh", "sha256sum", "uname -r", "nproc", "loadavg"]
    side = {key: answers[key] for key in order}
    monkeypatch.setattr(assemble, "LocalSide", lambda name, *_: Scripted(name, side))
    monkeypatch.setattr(assemble, "SshSide", lambda name, *_: Scripted(name, side))
    return side


def test_a_bench_holds_what_the_machine_says(machine):
    made, places, left_out = assemble.assemble(lab(), {"node1": UP}, {"@local": []})
    assert places == [HOST, GUEST]
    assert left_out == []
    host, guest = made.peers[0], made.peers[1]
    assert host.end.kernel.release == "6.12.1-host"
    assert (host.tree.dc_pid, host.tree.enter) == (4711, "nsenter -p -t 4711 -- ")
    assert guest.end.kernel == Kernel(release="6.1.9-uml", sha256="a" * 64, config_sha256="c" * 64)
    assert (guest.mtu, guest.transport, guest.tree.enter) == (1400, "tuntap", "")
    assert guest.end.dvs_sha256 is not None
    assert (made.cpus, made.load()) == (2, 0.75)


def test_another_kernel_than_the_one_built_has_no_configuration_of_it(machine):
    running = {**UP, "record": {**UP["record"], "kernel_sha256": "b" * 64}}
    made, *_ = assemble.assemble(lab(), {"node1": running}, {"@local": []})
    assert made.peers[1].end.kernel.sha256 == "b" * 64
    assert made.peers[1].end.kernel.config_sha256 is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (None, "node1 is not up"),
        ({**UP, "running": False}, "node1 is not up"),
        ({**UP, "answers": False}, "node1 does not answer"),
    ],
)
def test_a_lab_that_is_not_up_is_said(machine, row, words):
    rows = {"node1": row} if row else {}
    with pytest.raises(assemble.NotMeasurable, match=f"two nodes or more must be up .{words}"):
        assemble.assemble(lab(), rows, {"@local": []})


def test_a_lab_without_programs_or_with_another_name_is_said(machine):
    with pytest.raises(assemble.NotMeasurable, match="no programs to measure with"):
        assemble.assemble(lab(dvs=None), {"node1": UP}, {"@local": []})
    with pytest.raises(assemble.NotMeasurable, match="node7: no such node"):
        assemble.assemble(lab(), {"node1": UP}, {"@local": []}, ["node0", "node7"])


def test_options_lie_over_the_data():
    base = Measure(repeats=9, file_size="1M")
    assert settings(base, None, None, False) == base
    assert settings(base, ["copy", "copy"], 3, False).tests == ("copy",)
    quick = settings(base, None, 4, True)
    assert (quick.repeats, quick.file_size) == (4, "8M")


@pytest.mark.parametrize(
    ("tests", "repeats", "message"),
    [
        (["m3ftp"], None, "--test m3ftp: must be one of ping, message"),
        (None, 0, "--repeats: Input should be greater"),
    ],
)
def test_options_that_make_no_sense_are_refused(tests, repeats, message):
    with pytest.raises(Fault, match=message):
        settings(Measure(), tests, repeats, False)


def side(number):
    common = {
        "place": "uml",
        "address": "a",
        "dcs": [{"dcid": 0}],
        "tree": "/usr/src/dvs",
        "state": "/proc/dvs",
    }
    own = {"number": number, "name": f"node{number}", "run": "/run/umlaan", "cluster": "C"}
    return {**common, **own, "debug": 0, "carrier": "@local"}


def test_verification_knows_for_which_pairs_the_loop_programs_are_compiled():
    programs = {"loop_nodes": [0, 1], "loop_dir": "test-{server}-{client}", "environment": {}}
    hosts = [HostData("@local", False, {"host_dvk": False, "measure": {"programs": programs}})]
    hosts += [HostData(f"@uml/node{n}", True, hosts[0].data) for n in range(2)]
    made = build_lab(hosts)
    found, none = exchanges.tests(made, side(0), side(1))
    assert none is None
    assert [row["what"] for row in found] == ["message loop", "block copy"]
    assert "cd /usr/src/dvs/test-0-1 " in found[0]["serve"]
    assert exchanges.tests(made, side(1), side(0)) == (
        [],
        "the loop programs are compiled for node0 and node1",
    )


@pytest.mark.parametrize(
    ("rows", "unbound"),
    [
        ([], False),
        ([" 0  20    20    -1/-1     1 1000    0 27342 27342 27342 27342 m3ftp_server"], True),
        ([" 0  20    20  4194999/2   0    0   20 27342 27342 27342 27342 m3ftpd"], True),
        ([" 0  20    20     1/1      0    0   20 27342 27342 27342 27342 m3ftpd"], False),
        ([" 0  21    21    -1/-1     1 1000    0 27342 27342 27342 27342 m3ftp_client"], False),
    ],
)
def test_only_what_is_bound_and_held_by_no_live_program_is_unbound(tmp_path, rows, unbound):
    (tmp_path / "DC0").mkdir()
    (tmp_path / "dvk-tests").mkdir()
    head = "DC pnr -endp -lpid/vpid- nd flag misc -getf -sndt -wmig -prxy name"
    (tmp_path / "DC0/procs").write_text("\n".join([head, *rows]) + "\n")
    made = bench(programs=Programs(unbind="touch done-{dcid}-{endpoint}"))
    tree = Tree(str(tmp_path), str(tmp_path))
    made.peers = {n: replace(peer, tree=tree) for n, peer in made.peers.items()}
    pair = Pair.of(made, case("m3ftp-get", buffer=65536, file=10))
    subprocess.run(["sh", "-c", pair.at_server.unbind(20)], check=False, timeout=10)
    assert (tmp_path / "dvk-tests/done-0-20").exists() is unbound
