"""A command in a node, listened to on its lab host: its streams, its code, its limits; its tars."""

from __future__ import annotations

import base64
import io
import os
import shlex
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from tests.unit.test_guest_bytes import _group_lives
from umlaan.facts.guest import GuestLook
from umlaan.plan import look, outspoken

LIMITS = outspoken.Limits(most="1000000", lines=1000, seconds=0)
SURELY = 60.0


def heard(script: str, limits: outspoken.Limits = LIMITS, **options: object) -> object:
    line = " ".join([*outspoken.words("node1", limits), *map(shlex.quote, ["sh", "-c", script])])
    return subprocess.run(["sh", "-c", line], capture_output=True, **options)  # type: ignore[call-overload]


def gone(pid: Path) -> None:
    """Nothing of that process group lives; who is a zombie is dead."""
    until = time.monotonic() + SURELY
    while _group_lives(int(pid.read_text())):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_both_streams_the_code_and_the_input_pass() -> None:
    done = heard("cat; printf '\\377\\n' >&2; exit 7", input=b"a\0\xff\nb")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"a\0\xff\nb", b"\xff\n")  # type: ignore[attr-defined]
    assert heard("kill -9 $$").returncode == 137  # type: ignore[attr-defined]
    none = subprocess.run(
        ["sh", "-c", " ".join([*outspoken.words("node1", LIMITS), "/nosuch"])], capture_output=True
    )
    assert none.returncode == 127 and b"/nosuch" in none.stderr


@pytest.mark.parametrize(
    ("script", "limits", "code", "said"),
    [
        ("cat /dev/zero", LIMITS, outspoken.TOO_MUCH, "it said more than 1000000 bytes"),
        ("cat /dev/zero >&2", LIMITS, outspoken.TOO_MUCH, "it said more than 1000000 bytes"),
        ("cat /dev/zero & wait", LIMITS, outspoken.TOO_MUCH, "it said more than 1000000 bytes"),
        ("yes ''", LIMITS, outspoken.TOO_MUCH, "it said more than 1000 lines"),
        ("sleep 1000", replace(LIMITS, seconds=1), outspoken.LATE, "no end after 1 s"),
        ("exec >&- 2>&-; sleep 1000", replace(LIMITS, seconds=1), outspoken.LATE, "no end after"),
        (
            "while :; do echo x; sleep 0.2; done",
            replace(LIMITS, seconds=2),
            outspoken.LATE,
            "no end after 2 s",
        ),
    ],
)
def test_who_says_too_much_or_takes_too_long_is_ended_and_named(
    script: str, limits: outspoken.Limits, code: int, said: str, tmp_path: Path
) -> None:
    began = time.monotonic()
    done = heard(f"echo $$ >{tmp_path}/pid; {script}", limits, timeout=SURELY * 2)
    assert time.monotonic() - began < SURELY
    last = done.stderr.decode(errors="replace").splitlines()[-1]  # type: ignore[attr-defined]
    assert done.returncode == code  # type: ignore[attr-defined]
    assert f"umlaan: node1: {said}" in last and "its command was ended" in last
    assert len(done.stdout) + len(done.stderr) < 1_100_000  # type: ignore[attr-defined]
    gone(tmp_path / "pid")


def test_who_listens_no_more_ends_it(tmp_path: Path) -> None:
    line = [*outspoken.words("node1", LIMITS), "sh", "-c"]
    script = shlex.quote(f"echo $$ >{tmp_path}/pid; while :; do echo x; sleep 0.1; done")
    process = subprocess.Popen(
        ["sh", "-c", " ".join(["exec", *line, script])], stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"x\n"
    process.stdout.close()
    assert process.wait(SURELY) == 141
    gone(tmp_path / "pid")


def test_a_fetched_file_fills_half_of_what_is_free_at_most(tmp_path: Path) -> None:
    limits = outspoken.file_for(str(tmp_path))
    words = outspoken.words("node1", limits)
    done = subprocess.run(
        ["sh", "-c", " ".join(["set --", *words, "; echo $5"])], capture_output=True, text=True
    )
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert 0 < int(done.stdout) < free


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return base64.b64encode(buffer.getvalue()).decode()


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple:  # type: ignore[type-arg]
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    return info, data


def sparse(tmp_path: Path, *words: str) -> str:
    """13 KB that unpack to a gigabyte, as tar itself makes them."""
    with (tmp_path / "hostname").open("wb") as file:
        file.truncate(1 << 30)
    done = subprocess.run(
        ["tar", "-C", str(tmp_path), "-S", *words, "-cf", "-", "hostname"], capture_output=True
    )
    assert done.returncode == 0 and len(done.stdout) < 20_000
    return base64.b64encode(done.stdout).decode()


def refused(*lines: str) -> str:
    with pytest.raises(FactProcessError) as fault:
        GuestLook().process(list(lines))
    return str(fault.value)


@pytest.mark.parametrize("words", [(), ("--format=posix",)])
def test_a_tar_of_few_bytes_never_becomes_a_gigabyte(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    said = refused(sparse(tmp_path, *words))
    assert "hostname has 1073741824 bytes, 1 MB are taken of a file" in said


def test_what_is_no_tar_no_listing_or_too_many_is_one_clear_message() -> None:
    many = packed(*(member(f"etc/{n}") for n in range(look.MANY + 1)))
    assert "no file of its kind" in refused(many)
    large = packed(*(member(f"etc/{n}", bytes(1 << 20)) for n in range(9)))
    assert "8 MB of all" in refused(large)
    for line in ("not base64!", base64.b64encode(b"x" * 2000).decode()):
        assert "is not taken" in refused(line)
    listing = base64.b64encode(b"f\0notoctal\0name\0\0").decode()
    assert "is not taken" in refused("", "tree", listing)
    assert "is not taken" in refused("", "modules only")


def test_devices_and_links_of_a_tar_are_passed_over() -> None:
    link = member("etc/hosts", kind=tarfile.SYMTYPE)
    link[0].linkname = "/etc/shadow"
    device = member("etc/fstab", kind=tarfile.CHRTYPE)
    found = look.parse([packed(link, device, member("etc/hostname", b"node1\n"))])
    assert found.files == {"etc/hostname": (0o644, b"node1\n")}


def test_space_that_is_no_number_is_not_known() -> None:
    for text in ("² 3", f"{'9' * 5000} 1", "- -", "1"):
        assert look.parse_space([text]) is None
    assert look.parse_space(["10 -"]) == (10, 1 << 40)
