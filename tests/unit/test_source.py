"""Source packages: what dpkg says, what a .deb holds, what a tarball is."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from umlaan.agent import apt, source
from umlaan.agent.chamber import BuildError

STATUS = """\
Package: linux-source-6.1
Status: install ok installed
Version: 6.1.192-2

Package: linux-source-6.1-extra
Status: install ok installed
Version: 9

Package: gone
Status: deinstall ok config-files
Version: 1.0

Package: twice
Status: deinstall ok config-files
Architecture: i386
Version: 1

Package: twice
Status: install ok installed
Architecture: amd64
Version: 1:2-3
"""


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("linux-source-6.1", "6.1.192-2"),
        ("gone", None),
        ("linux-source", None),
        ("twice", "1:2-3"),
    ],
)
def test_dpkg_says_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str | None
) -> None:
    (tmp_path / "status").write_text(STATUS)
    monkeypatch.setattr(apt, "STATUS", str(tmp_path / "status"))
    assert apt.installed(name) == version
    monkeypatch.setattr(apt, "STATUS", str(tmp_path / "none"))
    assert apt.installed(name) is None


def deb(tmp_path: Path, package: str, name: str) -> str:
    """A small package that holds one file in /usr/src."""
    root = tmp_path / "pkg"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/src").mkdir(parents=True)
    (root / f"usr/src/{name}").write_bytes(b"tar")
    control = f"Package: {package}\nVersion: 1:2-3\nArchitecture: all\nMaintainer: x <x@x>\n"
    (root / "DEBIAN/control").write_text(control + "Description: x\n")
    path = tmp_path / f"{package}_1%3a2-3_all.deb"
    subprocess.run(["dpkg-deb", "-b", str(root), str(path)], check=True, capture_output=True)
    return str(path)


def test_a_downloaded_package_is_found_again(tmp_path: Path) -> None:
    wanted = {"package": "linux-source-9.9", "suite": "sid"}
    folder = tmp_path / "source/deb/linux-source-9.9@sid"
    folder.mkdir(parents=True)
    assert source.package_file(wanted, str(tmp_path)) is None
    path = deb(tmp_path, "linux-source-9.9", "linux-source-9.9.tar.xz")
    source.extract_deb("linux-source-9.9", path, str(folder))
    found = source.package_file(wanted, str(tmp_path))
    assert found == (str(folder / "linux-source-9.9.tar.xz"), "1:2-3")
    identity = source.identify(wanted, str(tmp_path))
    assert identity["label"] == "linux-source-9.9 of sid 1:2-3"
    assert identity["hash"]
    assert sorted(p.name for p in folder.iterdir()) == ["linux-source-9.9.tar.xz", "record.json"]
    (folder / "linux-source-9.9.tar.xz").unlink()
    assert source.package_file(wanted, str(tmp_path)) is None


def test_a_package_that_is_no_kernel_source_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    path = deb(tmp_path, "hello", "hello.txt")
    with pytest.raises(BuildError, match="hello: holds no /usr/src/hello.tar"):
        source.extract_deb("hello", path, str(folder))
    assert not (folder / "record.json").exists()


def test_a_suite_with_an_older_version_than_the_installed_one_is_asked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt by itself looks for the newest version that it knows, and dpkg knows a newer one."""
    archive, folder = tmp_path / "mirror", tmp_path / "downloads"
    made = Path(deb(tmp_path, "small-uml", "linux.uml"))
    pool = archive / "pool"
    pool.mkdir(parents=True)
    made = made.rename(pool / "small-uml.deb")
    lists = archive / "dists/old/main/binary-amd64"
    lists.mkdir(parents=True)
    row = f"Filename: pool/{made.name}\nSize: {made.stat().st_size}\nSHA256: "
    row += hashlib.sha256(made.read_bytes()).hexdigest()
    head = "Package: small-uml\nVersion: 1:2-3\nArchitecture: all\n"
    packages = f"{head}{row}\nDescription: x\n\n"
    (lists / "Packages").write_text(packages)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    (archive / "dists/old/Release").write_text(
        "Suite: old\nCodename: old\nComponents: main\nArchitectures: amd64 all\n"
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"SHA256:\n {digest} {len(packages)} main/binary-amd64/Packages\n"
    )
    status = f"{head}Status: install ok installed\nMaintainer: x <x@x>\nDescription: x\n"
    (tmp_path / "status").write_text(status.replace("1:2-3", "1:9"))
    (tmp_path / "apt.conf").write_text(
        f'Dir::State::status "{tmp_path}/status";\nAcquire::AllowInsecureRepositories "1";\n'
        'APT::Get::AllowUnauthenticated "1";\nAPT::Architecture "amd64";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setattr(apt, "mirror", lambda: f"file://{archive}")
    folder.mkdir()
    found = apt.download("small-uml", "old", str(folder))
    assert Path(found).name == "small-uml_1%3a2-3_all.deb"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("# x\nVERSION = 4\nPATCHLEVEL = 9\nSUBLEVEL = 88\nEXTRAVERSION = -DVKIPC\n", "4.9.88"),
        ("VERSION = 2\nPATCHLEVEL = 6\n", "2.6"),
        ("all:\n\techo no kernel\n", None),
    ],
)
def test_the_version_is_read_from_the_makefile(
    tmp_path: Path, text: str, version: str | None
) -> None:
    (tmp_path / "Makefile").write_text(text)
    assert source.version_of(str(tmp_path)) == version


def test_a_wrong_sha256_of_a_tarball_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "l.tar.xz"
    path.write_bytes(b"x")
    found = source.identify({"tarball": str(path), "sha256": "0" * 64}, str(tmp_path / "c"))
    assert found["problem"].startswith(f"kernel.source: {path}: sha256 2d711642")
    assert json.dumps(found)
