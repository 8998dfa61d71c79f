"""Where a measured program runs: in a network namespace of this machine, or behind ssh.

Both speak sh, so that one small set of scripts starts, waits for and ends programs on either.
What a program prints goes to a file on its own side and is fetched after it ended: nothing of the
measuring crosses the network while something is measured.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from umlaan.agent import bounded
from umlaan.agent.visible import word

# Enough for every line that a parser reads; a program under debug prints megabytes before them.
TAIL_BYTES = 65_536
# The stamp of a large tree is all that comes near it.
MOST = 32 << 20
LONGEST = 4096
# For an end that does not keep the deadline that it was given.
SPARE_S = 15.0
# A killed program is gone at once; one that the DVK holds, when its call has timed out.
KILLED_S = 11


class SideError(Exception):
    """The side itself cannot be used (unreachable, no shell): names it and says what it said."""


@dataclass(frozen=True)
class Done:
    """A command that was run: its exit code and output (both streams), and how it ended."""

    code: int
    output: str
    seconds: float
    timed_out: bool = False
    ended: bool = True

    @property
    def last_line(self) -> str:
        """The last line that says something."""
        return _last_line(self.output, "no output")


@dataclass(frozen=True)
class Handle:
    """A program that was started on a side: its process group, and its folder of files there.

    waited is how waiting for it ended: 0 ready, 3 it ended before, 4 the deadline came first.
    """

    group: int
    folder: str
    waited: int = 0


class Side(Protocol):
    """What a runner asks of the place where a program runs."""

    @property
    def name(self) -> str:
        """For messages: node1."""
        ...

    def run(self, script: str, timeout: float) -> Done:
        """Run a script of sh to its end, killed after timeout seconds. SideError if it cannot."""
        ...

    def start(
        self, script: str, lifetime: float, ready: str = "true", timeout: float = 5
    ) -> Handle:
        """Start a script in a session of its own and wait until ready exits 0.

        It is killed after lifetime seconds, whatever becomes of who started it.
        """
        ...

    def wait_until(self, handle: Handle, ready: str, timeout: float, then: str = "true") -> Done:
        """Until ready exits 0: code 0 and then's output; 3 if the program ended before, 4 late."""
        ...

    def finish(self, handle: Handle, timeout: float, grace: float = 3) -> Done:
        """Until the program ends by itself, or end it with its whole group at the deadline.

        It has grace seconds to heed SIGTERM, then it is killed. Its code and output; timed_out
        where it had to be ended. Its files are removed.
        """
        ...


class ShellSide:
    """A side that runs scripts of sh through a command line of its own."""

    def __init__(self, name: str, prefix: Sequence[str], via: Sequence[str] = ()) -> None:
        self.name = name
        self._prefix = tuple(prefix)
        self._via = tuple(via)

    def _words(self, script: str, timeout: float) -> list[str]:
        return [*self._prefix, "timeout", "-k", "2", f"{timeout:.1f}", "sh", "-c", script]

    def _argv(self, script: str, timeout: float) -> list[str]:
        words = self._words(script, timeout)
        return [*self._via, shlex.join(words)] if self._via else words

    def run(self, script: str, timeout: float) -> Done:
        """Run a script to its end; see Side."""
        begin = time.monotonic()
        words = self._argv(script, timeout)
        try:
            # The far end's own timeout comes first; this one is for an end that hangs.
            said = bounded.run(words, timeout + SPARE_S, most=MOST, errors=subprocess.STDOUT)
        except OSError as error:
            raise SideError(f"{self.name}: {error.filename}: {error.strerror}") from None
        seconds = time.monotonic() - begin
        if said.late:
            return Done(137, "", seconds, timed_out=True, ended=False)
        if said.fault:
            raise SideError(f"{self.name}: {said.fault}")
        self._check(said.code, said.output)
        late = said.code in (124, 137) and seconds >= timeout
        return Done(said.code, _clipped(said.output), seconds, timed_out=late)

    def _check(self, code: int, output: str) -> None:
        """SideError where the code is the transport's own and not the script's."""
        if code == 255 and self._via:
            raise SideError(f"{self.name}: {_last_line(output)}")

    def start(
        self, script: str, lifetime: float, ready: str = "true", timeout: float = 5
    ) -> Handle:
        """Start a script in a session of its own and wait; see Side."""
        # The trap lets this shell outlive the program's end by a signal and write down its code.
        watchdog = "trap 'kill $s' TERM; sleep \"$2\" & s=$!; wait $s && kill -KILL 0; wait"
        inner = (
            f'trap : TERM; ( {watchdog} ) & w=$!; sh -c "$1"; '
            'echo $? >"$0/code.new"; mv "$0/code.new" "$0/code"; kill $w; wait'
        )
        outer = (
            'd=$(mktemp -d "${TMPDIR:-/tmp}/umlaan-measure.XXXXXX") || exit 1; '
            f"setsid sh -c {shlex.quote(inner)} "
            f'"$d" {shlex.quote(script)} {lifetime:.0f} >"$d/out" 2>&1 </dev/null & '
            f"p=$!; ( {_until(ready, '$p', '$d', timeout)} ); "
            'echo "started $p $d $?"'
        )
        done = self.run(outer, timeout + 30)
        words = done.last_line.split()
        if done.code or len(words) != 4 or words[0] != "started":
            raise SideError(f"{self.name}: cannot start a program: {done.last_line}")
        return Handle(int(words[1]), words[2], int(words[3]))

    def wait_until(self, handle: Handle, ready: str, timeout: float, then: str = "true") -> Done:
        """Until ready exits 0; see Side."""
        wait = _until(ready, str(handle.group), handle.folder, timeout)
        return self.run(f"( {wait} ) || exit; {then}", timeout + 30)

    def finish(self, handle: Handle, timeout: float, grace: float = 3) -> Done:
        """Until the program ends by itself, or end it; see Side."""
        ended = _ended(str(handle.group), handle.folder)
        # Its shell dies of the signal at once; upstream's m3ftpd, beside it, only when a receive
        # of 10 s has passed, and killed before, it leaves its endpoint bound.
        empty = f"{_empty(handle.group)} && exit 0;"
        term = f"kill -TERM -{handle.group} 2>/dev/null"
        script = (
            f"if ( {_polled(f'{ended} && exit 0;', timeout)} ); then echo itself; "
            f"( {_polled(empty, 1)} ) || {term}; else echo stopped; {term}; fi; "
            f"( {_polled(empty, grace)} ) || "
            f"{{ kill -KILL -{handle.group} 2>/dev/null; ( {_polled(empty, KILLED_S)} ); }}; "
            f"cat {handle.folder}/code 2>/dev/null || echo 137; "
            f"tail -c {TAIL_BYTES} {handle.folder}/out; rm -rf {handle.folder}"
        )
        done = self.run(script, timeout + grace + KILLED_S + 30)
        how, code, output = (done.output.split("\n", 2) + ["", ""])[:3]
        stopped = how == "stopped"
        return Done(int(code) if code.isdigit() else 137, output, done.seconds, timed_out=stopped)


class LocalSide(ShellSide):
    """The lab host, in a network namespace of it if one is named (else as it is).

    via is the command that runs a line of sh on it, if it is not this machine (``ssh … host``).
    """

    def __init__(self, name: str, namespace: str | None = None, via: Sequence[str] = ()) -> None:
        inside = ["ip", "netns", "exec", namespace] if namespace else ["env"]
        super().__init__(name, inside, via)


class SshSide(ShellSide):
    """A UML guest, behind ssh on its lab host: ssh is the whole command up to what is to run."""

    def __init__(self, name: str, ssh: Sequence[str], via: Sequence[str] = ()) -> None:
        super().__init__(name, ssh, via)

    def _words(self, script: str, timeout: float) -> list[str]:
        words = ["timeout", "-k", "2", f"{timeout:.1f}", "sh", "-c", script]
        return [*self._prefix, shlex.join(words)]

    def _check(self, code: int, output: str) -> None:
        if code == 255:
            raise SideError(f"{self.name}: {_last_line(output)}")


def _last_line(output: str, silent: str = "no answer") -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return word(lines[-1], 200) if lines else silent


def _ended(group: str, folder: str) -> str:
    """True once the program is over, be it that nobody could write down how (kill -9, zombie)."""
    return (
        f"{{ [ -e {folder}/code ] || "
        f"! grep -q '^State:[[:space:]]*[^ZX[:space:]]' /proc/{group}/status 2>/dev/null; }}"
    )


def _empty(group: int) -> str:
    """True where no process of the group lives; zombies that nobody reaps do not count."""
    return (
        f"cat /proc/[0-9]*/stat 2>/dev/null | awk -v g={group} "
        "'{ sub(/^.*\\) /, \"\") } $3 == g && $1 !~ /[ZX]/ { n++ } END { exit n > 0 }'"
    )


def _until(ready: str, group: str, folder: str, timeout: float) -> str:
    """Exits 0 once ready does, 3 where the program ended before, 4 at the deadline."""
    return _polled(
        f"( {ready} ) >/dev/null 2>&1 && exit 0; {_ended(group, folder)} && exit 3;", timeout
    )


def _polled(body: str, timeout: float) -> str:
    """body again and again; it exits, or the deadline does with 4."""
    deadline = f"u=$(( $(date +%s) + {round(timeout)} ))"
    return f"{deadline}; while :; do {body} [ $(date +%s) -ge $u ] && exit 4; sleep 0.05; done"


def _clipped(output: str) -> str:
    """No line so long that a pattern that is looked for in it takes minutes."""
    return "\n".join(line[:LONGEST] for line in output.split("\n"))
