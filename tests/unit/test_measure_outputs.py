"""What the programs print, and what of it is no figure."""

import pytest

from umlaan.measure import outputs
from umlaan.measure.outputs import NotAFigure

# The procedure's own captures.
FTPD_64K = """t_start=1597187333.69 t_stop=1597187436.31 t_total=102.62
total_bytes = 69227508
FTP_GET [vmlinux] Throuhput = 674578.360351 [bytes/s]
"""
FTPD_1M = """t_start=1597188308.03 t_stop=1597188349.19 t_total=41.15
total_bytes = 69227508
FTP_GET [vmlinux] Throuhput = 1682237.536407 [bytes/s]
"""
FTPD_PAGE = """\t\tt_start=1597065786.26 t_stop=1597065787.32 t_total=1.07
\t\ttotal_bytes = 1024000
\t\tThrouhput = 958636.216548 [bytes/s]
"""
SCP = """Sending file modes: C0755 69227508 vmlinux
vmlinux                 100%   66MB   6.0MB/s   00:10
debug1: client_input_channel_req: channel 0 rtype exit-status reply 0
Transferred: sent 14480, received 69312416 bytes, in 11.0 seconds
Bytes per second: sent 1313.7, received 6288443.9
"""
PING = """PING node0 (192.168.1.100) 56(84) bytes of data.
64 bytes from node0 (192.168.1.100): icmp_seq=1 ttl=64 time=0.409 ms
64 bytes from node0 (192.168.1.100): icmp_seq=2 ttl=64 time=0.196 ms
64 bytes from node0 (192.168.1.100): icmp_seq=3 ttl=64 time=0.196 ms

--- node0 ping statistics ---
3 packets transmitted, 3 received, 0% packet loss, time 2031ms
rtt min/avg/max/mdev = 0.196/0.267/0.409/0.100 ms
"""
LOOP = """ loop_r-s_server.c:main:140:MAIN SERVER: Waiting STOP message from remote MAIN CLIENT
t_start=1900000000.10 t_stop=1900000002.10 t_total=2.00
Children = 2
Loops = 100
Total msg transfers = 200
Time for a pair of SENDREC/RECEIVE-SEND= 10.012345[ms]
Throuhput = 99.876703 [SENDREC/RECEIVE-SEND/s]
 loop_r-s_server.c:main:228:MAIN SERVER END
"""
COPY = """t_start=1900000000.54 t_stop=1900000003.74 t_total=3.20
transfer size=65536 #transfers=100 loopbysec=31.216598
Throuhput = 2045810.997003 [bytes/s]
"""


def test_the_procedures_file_transfers():
    assert outputs.m3ftpd_log(FTPD_64K, 69227508).mb_s == pytest.approx(0.674578360351)
    assert outputs.m3ftpd_log(FTPD_1M, 69227508).mb_s == pytest.approx(1.682237536407)
    assert outputs.m3ftpd_log(FTPD_PAGE, 1024000).mb_s == pytest.approx(0.958636216548)


def test_the_procedures_scp_counts_the_files_bytes():
    got = outputs.scp(SCP, 69227508)
    assert got.seconds == pytest.approx(11.022, abs=0.001)
    assert got.mb_s == pytest.approx(6.2807, abs=0.0001)


def test_scp_that_sent_is_read_from_its_sending_side():
    text = SCP.replace("sent 14480, received 69312416", "sent 69312416, received 14480").replace(
        "sent 1313.7, received 6288443.9", "sent 6288443.9, received 1313.7"
    )
    assert outputs.scp(text, 69227508).mb_s == pytest.approx(6.2807, abs=0.0001)


def test_the_procedures_ping_with_its_samples():
    got = outputs.ping(PING, 3)
    assert got.samples == (0.409, 0.196, 0.196)
    assert (got.minimum, got.average, got.maximum, got.deviation) == (0.196, 0.267, 0.409, 0.1)


@pytest.mark.parametrize(
    "summary",
    [
        "round-trip min/avg/max = 0.196/0.267/0.409 ms",
        "round-trip min/avg/max/stddev = 0.196/0.267/0.409/0.100 ms",
    ],
)
def test_ping_of_busybox_and_inetutils(summary):
    text = "3 packets transmitted, 3 packets received, 0% packet loss\n" + summary
    assert outputs.ping(text, 3).average == 0.267


def test_the_loops_figures_have_more_digits_than_their_times():
    got = outputs.message_loop(LOOP, 200)
    assert (got.ms, got.count) == (10.012345, 200)
    copied = outputs.copy_loop(COPY, 65536, 100)
    assert copied.bytes == 6553600
    assert copied.mb_s == pytest.approx(2.045811, abs=1e-6)
    assert outputs.copy_loop(COPY, 65536, 100, children=2).mb_s == pytest.approx(4.09162, abs=1e-5)


def test_a_loop_too_short_for_its_two_decimals_is_still_a_figure():
    text = LOOP.replace("t_stop=1900000002.10 t_total=2.00", "t_stop=1900000000.10 t_total=0.00")
    text = text.replace("10.012345[ms]", "0.020000[ms]")
    assert outputs.message_loop(text, 200).ms == 0.02


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("t_total=41.15", "t_total=-41.15", "negative time"),
        ("t_stop=1597188349.19", "t_stop=1597188300.00", "negative time"),
        ("t_total=41.15", "t_total=21.15", "contradict"),
        ("t_total=41.15", "t_total=nan", "no numbers"),
        ("total_bytes = 69227508", "total_bytes = 69227507", "short: 69227507 of 69227508"),
        ("total_bytes = 69227508", "total_bytes = -1", "short"),
        ("1682237.536407", "inf", "no figure"),
        ("1682237.536407", "0.000000", "no figure"),
        ("1682237.536407", "9682237.536407", "contradicts"),
        ("total_bytes = 69227508\n", "", "missing line: total_bytes"),
        ("FTP_GET [vmlinux] Throuhput", "", "missing line: Throuhput"),
    ],
)
def test_a_file_transfer_that_is_no_figure(old, new, message):
    assert old in FTPD_1M
    with pytest.raises(NotAFigure, match=message):
        outputs.m3ftpd_log(FTPD_1M.replace(old, new), 69227508)


def test_an_empty_log_and_a_doubled_one_are_no_figure():
    with pytest.raises(NotAFigure, match="missing line: t_start"):
        outputs.m3ftpd_log("", 10)
    with pytest.raises(NotAFigure, match="2 results"):
        outputs.m3ftpd_log(FTPD_1M * 2, 69227508)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Total msg transfers = 200", "Total msg transfers = 150", "short: 150 of 200"),
        ("10.012345", "-10.012345", "no figure"),
        ("10.012345", "99.000000", "contradicts"),
        ("Time for a pair", "Time", "missing line: Time for a pair"),
    ],
)
def test_a_message_loop_that_is_no_figure(old, new, message):
    with pytest.raises(NotAFigure, match=message):
        outputs.message_loop(LOOP.replace(old, new), 200)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("#transfers=100", "#transfers=99", "short: 99 blocks"),
        ("size=65536", "size=65535", "short"),
        ("31.216598", "inf", "no figure"),
        ("31.216598", "11.216598", "contradicts"),
        ("Throuhput = 2045810.997003 [bytes/s]", "", "missing line: Throuhput"),
    ],
)
def test_a_block_copy_that_is_no_figure(old, new, message):
    with pytest.raises(NotAFigure, match=message):
        outputs.copy_loop(COPY.replace(old, new), 65536, 100)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3 received, 0%", "2 received, 33%", "lost: 2 of 3"),
        ("3 packets transmitted", "2 packets transmitted", "lost"),
        ("time=0.409 ms", "time=0.409 ms (DUP!)", "duplicate"),
        ("0.196/0.267/0.409", "0.500/0.267/0.409", "contradict"),
        ("rtt", "nothing", "missing line: rtt"),
    ],
)
def test_a_ping_that_is_no_figure(old, new, message):
    with pytest.raises(NotAFigure, match=message):
        outputs.ping(PING.replace(old, new), 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("received 69312416", "received 6931241", "short: 6931241 bytes"),
        ("received 6288443.9", "received 0.0", "no figure"),
        ("in 11.0 seconds", "in 3.0 seconds", "contradict"),
        ("Bytes per second", "", "missing line: Bytes per second"),
    ],
)
def test_an_scp_that_is_no_figure(old, new, message):
    with pytest.raises(NotAFigure, match=message):
        outputs.scp(SCP.replace(old, new), 69227508)


def test_a_programs_complaint_is_found_whatever_its_exit_code():
    text = "ok so far\nERROR: loops.c:main:12: rcode=-310\nmore\n"
    assert outputs.complaint(text) == "ERROR: loops.c:main:12: rcode=-310"
    assert outputs.complaint("BIND ERROR ret=-337: taken\n") == "BIND ERROR ret=-337: taken"
    assert outputs.complaint("ERRORS: none\nall is well") is None


def test_a_receive_that_is_tried_again_is_no_complaint():
    retried = "ERROR: 958:dvk_receive_T:904: rcode=-108\n"
    assert outputs.complaint(f"{retried}MAIN CLIENT END\n") is None
    assert outputs.complaint(f"{retried}ERROR: x:y:1: rcode=-108\n") == "ERROR: x:y:1: rcode=-108"
