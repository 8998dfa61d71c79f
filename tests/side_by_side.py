"""Runs test files side by side, each group of them in a pytest of its own, the longest first.

    python -m tests.side_by_side [--at-once N] [--groups N] [--record] FOLDER_OR_FILE...

Without --groups each file is a group of its own. How long a file takes is kept in durations.json
(seconds, by --record); a file that is not there yet comes first. The exit code is 0 only where
every group's was; the output of a group is shown when it ends, all of it if it failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

REPO = Path(__file__).resolve().parents[1]
DURATIONS = Path(__file__).with_name("durations.json")
UNKNOWN = 3600.0  # seconds: longer than any


@dataclass
class Group:
    """Files that one pytest runs, one after the other."""

    files: list[str] = field(default_factory=list)
    weight: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    output: IO[bytes] | None = None
    report: Path | None = None
    started: float = 0.0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return self.files[0] + more

    def start(self, folder: Path, number: int, words: list[str]) -> None:
        self.output = (folder / f"{number}.log").open("w+b")
        self.report = folder / f"{number}.xml"
        self.started = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"--junit-xml={self.report}", "-o", "junit_family=xunit1", *words, *self.files]
        self.process = subprocess.Popen(
            command,
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def text(self) -> str:
        assert self.output is not None
        self.output.seek(0)
        return self.output.read().decode(errors="replace")


def files_of(paths: list[str]) -> list[str]:
    """The test files under the paths, relative to the repository."""
    found = []
    for path in map(Path, paths):
        files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
        found += [os.path.relpath(file.resolve(), REPO) for file in files]
    return found


def grouped(files: list[str], seconds: dict[str, float], count: int | None) -> list[Group]:
    """Groups of about equal length, the longest first: each next file joins the shortest group."""
    ordered = sorted(files, key=lambda file: -seconds.get(file, UNKNOWN))
    groups = [Group() for _ in range(min(count or len(files), len(files)))]
    known = [seconds[file] for file in files if file in seconds]
    typical = sum(known) / len(known) if known else 1.0
    for file in ordered:
        shortest = min(groups, key=lambda group: (group.weight, len(group.files)))
        shortest.files.append(file)
        shortest.weight += seconds.get(file, typical if count else UNKNOWN)
    return sorted(groups, key=lambda group: -group.weight)


def durations(report: Path) -> dict[str, float]:
    """Seconds by file, out of a pytest's report."""
    out: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        out[case.get("file") or "?"] += float(case.get("time") or 0)  # type: ignore[assignment]
    return dict(out)


def slowest(report: Path) -> list[tuple[float, str]]:
    cases = ElementTree.parse(report).iter("testcase")
    return [(float(c.get("time") or 0), f"{c.get('file')}::{c.get('name')}") for c in cases]


def counts(text: str) -> Counter[str]:
    """The figures of pytest's last line; empty where there is none."""
    lines = [line for line in text.splitlines() if re.search(r" in [\d.]+s( \(.*\))?( =+)?$", line)]
    found = re.findall(r"(\d+) (passed|failed|errors?|skipped)", lines[-1]) if lines else []
    out: Counter[str] = Counter()
    for number, word in found:
        out["failed" if word.startswith("err") else word] += int(number)
    return out


def run(groups: list[Group], at_once: int, folder: Path, words: list[str]) -> list[Group]:
    """All groups, at most so many at once; those that failed."""
    waiting, running, failed = list(groups), [], []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                group = waiting.pop(0)
                group.start(folder, len(waiting), words)
                running.append(group)
            # Any child that ends; who it was the loop below finds out.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            for group in [one for one in running if one.process and one.process.poll() is not None]:
                running.remove(group)
                assert group.process is not None
                group.seconds = time.monotonic() - group.started
                text = group.text()
                last = (text.rstrip().splitlines() or ["nothing printed"])[-1]
                if group.process.returncode:
                    failed.append(group)
                    print(f"{text}\n{group.name}: exit code {group.process.returncode}", flush=True)
                else:
                    print(f"{group.name}: {last}", flush=True)
    finally:
        for group in running:
            if group.process and group.process.poll() is None:
                os.killpg(group.process.pid, signal.SIGTERM)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--groups", type=int)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("paths", nargs="+")
    given, words = parser.parse_known_args()
    started = time.monotonic()
    # So that what runs ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seconds = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    files = files_of(given.paths)
    groups = grouped(files, seconds, given.groups)
    with tempfile.TemporaryDirectory(prefix="umlaan-tests-") as name:
        failed = run(groups, given.at_once, Path(name), words)
        total: Counter[str] = Counter()
        reports = [group.report for group in groups if group.report and group.report.exists()]
        for group in groups:
            total += counts(group.text())
        for took, test in sorted((row for one in reports for row in slowest(one)), reverse=True)[
            :10
        ]:
            print(f"  {took:7.1f} s  {test}")
        if given.record:
            taken = {file: took for one in reports for file, took in durations(one).items()}
            kept = {file: took for file, took in seconds.items() if (REPO / file).exists()}
            rows = sorted((kept | {f: round(t, 1) for f, t in taken.items()}).items())
            DURATIONS.write_text(json.dumps(dict(rows), indent=1) + "\n")
    for group in failed:
        print(f"failed: {group.name}")
    skipped = f", {total['skipped']} skipped" if total["skipped"] else ""
    print(f"{len(files)} files side by side in {time.monotonic() - started:.1f} s")
    print(f"{total['passed']} passed, {total['failed']} failed{skipped}", flush=True)
    # A group that ended without its figures failed as well, whatever it counted.
    return 1 if failed or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
