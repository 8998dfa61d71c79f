"""``node-wait JSON``: wait until a guest's sshd greets, or say why it never will.

The order: {name, dir, umid, root, address, namespace, deadline, cap}. The deadline counts from the
last progress: bytes of the console, processor time of the UML, what its port answers; cap ends what
only pretends. A line every three seconds; on failure the end of the console log. Exit code 0, or 1.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from umlaan.agent import node, proc, reach
from umlaan.agent.patience import Wait, of_processor
from umlaan.agent.start import last_lines

# Of its patience a guest that does something uses this part of a processor; one that idles, less.
BUSY_PART = 1 / 30


def ended(record: dict[str, Any] | None) -> str:
    """How the last UML ended, in words."""
    code = ((record or {}).get("exit") or {}).get("code")
    if code is None:
        return "it is gone and nobody saw it end"
    if code in (134, -6):
        return "the guest's kernel panicked (abort)"
    return f"killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"


def _with_its_end(directory: str, grace: float = 2.0) -> dict[str, Any] | None:
    """The launch record once the holder has written how it ended: that comes after the end."""
    waiting = Wait(grace)
    while True:
        record = node.read_record(directory)
        if (record or {}).get("exit") or not waiting.goes_on(None):
            return record
        waiting.pause()


def console_bytes(directory: str) -> tuple[int, ...]:
    """A measure of what the guest has printed: the sizes of its console's logs."""
    sizes = []
    for name in ("console.log", "console.log.1"):
        try:
            sizes.append(os.stat(f"{directory}/{name}").st_size)
        except OSError:
            sizes.append(0)
    return tuple(sizes)


def wait(order: dict[str, Any]) -> str | None:
    """None once it answers; else the reason."""
    patience = float(order["deadline"])
    waiting = Wait(patience, order.get("cap"))
    what = f"ssh on {order['address']}"
    greeting = reach.Greeting(order["address"])
    while True:
        record = node.read_record(order["dir"])
        # A UML whose record is lost is found by its command line, which takes longer.
        if not node.running(record) and not node.state(order)["running"]:
            record = _with_its_end(order["dir"])
            return f"{order['name']} went down while waiting for {what}: {ended(record)}"
        if greeting.look(0.5):
            return None
        busy = of_processor(int((record or {}).get("pid") or 0), patience * BUSY_PART)
        if not waiting.goes_on((console_bytes(order["dir"]), busy, greeting.state)):
            return f"{order['name']} is up but {what} does not answer: {waiting.vain()}"
        if waiting.due():
            print(f"{order['name']}: waiting for {what}, {waiting.seconds():.0f} s", flush=True)
        # On a slow lab host a look twenty times a second takes what the guest needs to boot.
        waiting.pause(most=0.5)


def main(argv: list[str]) -> int:
    """The ``node-wait`` verb."""
    order = json.loads(argv[0])
    begun = time.monotonic()
    try:
        proc.enter_network(order.get("namespace"))
    except OSError as error:
        print(f"{order['name']}: {error}; the network stage makes it", file=sys.stderr)
        return 1
    fault = wait(order)
    if fault is None:
        print(f"{order['name']}: answers ssh after {time.monotonic() - begun:.1f} s")
        return 0
    log = f"{order['dir']}/console.log"
    print(f"{fault}\n  console: {log}; its last lines:", file=sys.stderr)
    for line in last_lines(log):
        print(f"    {line}", file=sys.stderr)
    return 1
