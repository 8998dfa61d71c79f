"""``lock --path FILE --holder TEXT [--lab NAME]``: hold a lab's lock until standard input ends.

Prints "locked" once it has it; else says who holds it and exits with 75, or what keeps it from
being taken at all. The run that started it keeps its standard input open: however that run ends,
the lock goes with it. With --lab it waits, while the lab host is starting, for what the lab's unit
starts.
"""

from __future__ import annotations

import argparse
import signal
import sys

from umlaan.agent import atboot
from umlaan.agent.files import locked


def main(argv: list[str]) -> int:
    """The ``lock`` verb."""
    parser = argparse.ArgumentParser(prog="lock")
    parser.add_argument("--path", required=True)
    parser.add_argument("--lab")
    parser.add_argument("--holder", required=True)
    options = parser.parse_args(argv)
    # Ctrl-C is for the run: the lock stays until that has ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if options.lab:
        atboot.awaited(options.lab)
    try:
        with locked(options.path, options.holder):
            print("locked", flush=True)
            sys.stdin.read()
    except TimeoutError as error:
        print(error, flush=True)
        return 75
    except OSError as error:
        print(f"no lock: {error}", flush=True)
        return 1
    return 0
