"""Debian packages without touching the machine's own lists: what dpkg has, what a suite offers."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import urllib.error
import urllib.request

from umlaan.agent.chamber import BuildError, say

DEFAULT_MIRROR = "http://deb.debian.org/debian"
STATUS = "/var/lib/dpkg/status"


def installed(name: str) -> str | None:
    """The version of an installed package, from dpkg's own file; None if it is not installed."""
    try:
        with open(STATUS, "rb") as file:
            text = file.read()
    except OSError:
        return None
    for match in re.finditer(rb"^Package: " + re.escape(name.encode()) + rb"\n", text, re.M):
        record = text[match.end() : text.find(b"\n\n", match.end())]
        if b"\nStatus: install ok installed" in b"\n" + record:
            version = re.search(rb"^Version: (\S+)", record, re.M)
            return version[1].decode() if version else None
    return None


def own_suite() -> str:
    """The suite that this machine runs, from os-release; empty if it is not said."""
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            match = re.search(r"^VERSION_CODENAME=(\S+)", file.read(), re.M)
    except OSError:
        return ""
    return match[1].strip('"') if match else ""


def mirror() -> str:
    """The Debian mirror of this machine's own apt sources; deb.debian.org if they name none."""
    texts = []
    for path in ("/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
        except OSError:
            continue
    return mirror_in(texts)


def mirror_in(texts: list[str]) -> str:
    """The first Debian archive that apt's source files name; security archives do not count."""
    for text in texts:
        for line in text.splitlines():
            match = re.match(r"(?:deb\s+(?:\[[^]]*\]\s+)?|URIs:\s*)(\S+)", line.strip())
            if match and re.search(r"/debian/?$", match[1]):
                return match[1].rstrip("/")
    return DEFAULT_MIRROR


def check_suite(archive: str, suite: str) -> None:
    """BuildError if the mirror does not carry the suite, or cannot be asked."""
    address = f"{archive}/dists/{suite}/Release"
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=30):
            return
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise BuildError(
                f"the mirror {archive} does not carry the suite {suite}; name another suite, "
                "or a mirror that does (archive.debian.org has the old ones)"
            ) from None
        raise BuildError(f"{address}: {error}") from None
    except (urllib.error.URLError, OSError) as error:
        raise BuildError(f"the mirror {archive} does not answer: {error}") from None


def options(folder: str) -> list[str]:
    """apt options that keep lists and cache in a folder of our own, and ask nothing of dpkg."""
    return [
        "-q",
        *("-o", f"Dir::Etc::sourcelist={folder}/sources.list"),
        *("-o", "Dir::Etc::sourceparts=-"),
        # Else a newer version that is installed here hides the suite's own.
        *("-o", "Dir::State::status=/dev/null"),
        *("-o", f"Dir::State::Lists={folder}/lists"),
        *("-o", f"Dir::Cache={folder}/cache"),
        *("-o", "APT::Sandbox::User=root"),
        *("-o", "Acquire::Languages=none"),
        *("-o", "Acquire::Retries=3"),
    ]


def download(package: str, suite: str | None, folder: str) -> str:
    """Fetch a package's .deb into a folder of our own; its path. BuildError names what failed."""
    apart = f"{folder}/apt"
    for name in ("lists/partial", "cache/archives/partial"):
        os.makedirs(f"{apart}/{name}", exist_ok=True)
    archive, wanted = mirror(), suite or own_suite()
    if not wanted:
        raise BuildError(f"{package}: which suite? name it: {package}@bookworm")
    check_suite(archive, wanted)
    signed = "/usr/share/keyrings/debian-archive-keyring.gpg"
    by = f"[signed-by={signed}] " if os.path.exists(signed) else ""
    with open(f"{apart}/sources.list", "w", encoding="utf-8") as file:
        file.write(f"deb {by}{archive} {wanted} main\n")
    say(f"download {package} of {wanted} from {archive}")
    _apt([*options(apart), "update"], folder, f"lists of {wanted}")
    _apt([*options(apart), "download", package], folder, f"{package} of {wanted}")
    found = sorted(glob.glob(f"{folder}/{package}_*.deb"), key=os.path.getmtime)
    if not found:
        raise BuildError(f"{package}: apt-get download left no file in {folder}")
    return found[-1]


def install(packages: list[str]) -> None:
    """Install packages on the machine itself, lists refreshed only if that is needed."""
    words = ["install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    try:
        _apt([*words, *packages], "/", " ".join(packages))
    except BuildError:
        _apt(["update", "-q"], "/", "package lists")
        _apt([*words, *packages], "/", " ".join(packages))


def _apt(words: list[str], folder: str, what: str) -> None:
    done = subprocess.run(
        ["apt-get", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    print(text, flush=True)
    if done.returncode:
        last = [line for line in text.splitlines() if line.startswith(("E:", "Err:"))]
        raise BuildError(f"{what}: {(last or text.splitlines() or ['apt-get failed'])[-1]}")
