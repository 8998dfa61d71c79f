"""What is run in a node is listened to on its lab host: so many bytes and lines, so long, no more.

pyinfra keeps all that a command says, and waits until it has said it: a guest without an end to
its answer would take the memory and the time of the whole run.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

# The exit codes of a command that was ended here.
LATE, TOO_MUCH = 195, 196
# Perl, which is in every Debian: it starts in 2 ms, Python in 60, and each command pays for it.
_SCRIPT = r"""
my ($who, $most, $lines, $seconds, @command) = @ARGV;
pipe(my $out, my $out_end) && pipe(my $err, my $err_end) or die "pipe: $!\n";
my $pid = fork // die "fork: $!\n";
if (!$pid) {
    setpgrp(0, 0);
    open(STDOUT, ">&", $out_end); open(STDERR, ">&", $err_end);
    close $_ for $out, $err, $out_end, $err_end;
    exec { $command[0] } @command;
    print STDERR "$command[0]: $!\n";
    exit 127;
}
setpgrp($pid, $pid);
close $_ for $out_end, $err_end;
sub end { kill KILL => -$pid; waitpid($pid, 0); exit $_[0] }
$SIG{$_} = sub { end(143) } for qw(INT TERM HUP);
$SIG{PIPE} = sub { end(141) };
my %from = (fileno $out => $out, fileno $err => $err);
my %to = (fileno $out => \*STDOUT, fileno $err => \*STDERR);
my ($until, $bytes, $rows) = (time + $seconds, 0, 0);
sub refuse { syswrite(STDERR, "umlaan: $who: $_[1]; its command was ended\n"); end($_[0]) }
sub left { return undef unless $seconds; my $left = $until - time;
    refuse(195, "no end after $seconds s") if $left <= 0; return $left }
while (%from) {
    my $bits = ""; vec($bits, $_, 1) = 1 for keys %from;
    select($bits, undef, undef, left()) > 0 or next;
    for my $fd (grep { vec($bits, $_, 1) } keys %from) {
        my $count = sysread($from{$fd}, my $data, 65536);
        if (!$count) { delete $from{$fd}; next }
        $bytes += $count; $rows += ($data =~ tr/\n//);
        refuse(196, "it said more than $most bytes") if $bytes > $most;
        refuse(196, "it said more than $lines lines") if $rows > $lines;
        for (my $at = 0; $at < $count;) {
            $at += syswrite($to{$fd}, $data, $count - $at, $at) // end(141);
        }
    }
}
my $nap = 0.001;
until (waitpid($pid, 1) == $pid) {
    left();
    select(undef, undef, undef, $nap);
    $nap = 0.05 if ($nap *= 2) > 0.05;
}
exit($? & 127 ? 128 + ($? & 127) : $? >> 8);
"""


@dataclass(frozen=True)
class Limits:
    """What one command may say, and for how long; most is a word of the lab host's shell."""

    most: str = str(32 << 20)
    # pyinfra keeps an object a line.
    lines: int = 500_000
    # 0: no deadline of umlaan's.
    seconds: int = 0


LIMITS = Limits()


def file_for(folder: str) -> Limits:
    """A file that is put into a folder of the lab host: half of what is free there."""
    free = f"df -B1 --output=avail {shlex.quote(folder)} | tail -n 1"
    return Limits(most=f'"$(($({free}) / 2))"', lines=1 << 60)


def words(who: str, limits: Limits) -> list[str]:
    """The words before a command, for the lab host's shell."""
    given = [limits.most, str(limits.lines), str(round(limits.seconds))]
    return ["perl", "-e", shlex.quote(_SCRIPT.strip()), shlex.quote(who), *given]
