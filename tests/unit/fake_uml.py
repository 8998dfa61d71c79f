"""Stands for a UML: words like its command line's, a console on its descriptors, an exit code.

It answers what is typed; ``exit N`` ends it, ``panic`` aborts it, ``child`` leaves a helper that
inherits all, as UML's own threads do. With ``deaf`` among its words SIGTERM does nothing, with
``slow=N`` it has an mconsole that takes N seconds for each answer and on cad ends with code 0.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
import time


def _mconsole(seconds: float) -> None:
    words = dict(word.partition("=")[::2] for word in sys.argv)
    folder = f"{words['uml_dir']}{words['umid']}"
    os.makedirs(folder)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    door.bind(f"{folder}/mconsole")
    while True:
        data, sender = door.recvfrom(4096)
        time.sleep(seconds)
        try:
            door.sendto(struct.pack("=III", 0, 0, 2) + b"OK", sender)
        except OSError:
            print("nobody waits for my answer", flush=True)
        if data[12:].rstrip(b"\0") == b"cad":
            os._exit(0)


for word in sys.argv:
    if word.startswith("slow="):
        threading.Thread(target=_mconsole, args=(float(word[5:]),), daemon=True).start()

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
