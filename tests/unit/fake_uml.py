"""Stands for a UML: words like its command line's, a console on its descriptors, an exit code.

It answers what is typed; ``exit N`` ends it, ``panic`` aborts it, ``child`` leaves a helper that
inherits all, as UML's own threads do. With ``deaf`` among its words SIGTERM does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time

if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "quits" in sys.argv:
    print("Kernel panic - not syncing: no root")
    sys.exit(3)
print("Linux version fake", flush=True)
while True:
    try:
        text = sys.stdin.readline()
    except OSError:
        text = ""
    if not text:
        # The holder is gone: UML runs on without a console.
        time.sleep(0.1)
        continue
    line = text.split()
    if line[:1] == ["exit"]:
        sys.exit(int(line[1]))
    if line == ["panic"]:
        os.abort()
    if line == ["child"] and os.fork() == 0:
        os.setsid()
        time.sleep(300)
    print("said", *line, flush=True)
