"""One look at a side of the DVS for all who ask at the same time.

Each node's part of a run asks for its peers: in a lab of 16 nodes that would be 136 looks a round,
each of them some ten processes in a guest. Who comes while another looks waits for it and takes
what that one or the next has seen, if it began after he asked: it is as good as a look of his own.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

from umlaan.agent.files import locked, make_folder, read_json
from umlaan.agent.proc import boot_id

View = dict[str, Any]


def shared(folder: str, name: str, question: str, look: Callable[[], View], wait: float) -> View:
    """The view that look would give, begun no earlier than now, by whoever asks first.

    folder is root's alone, on the lab host; question tells one kind of look from another.
    """
    asked = time.monotonic()
    key = hashlib.sha256(question.encode()).hexdigest()[:12]
    path = f"{folder}/{name}-{key}.json"
    if not os.path.isdir(os.path.dirname(folder)):
        # A plan of a lab that is not there yet makes nothing: its state folder would be refused.
        return look()
    try:
        make_folder(folder, 0o700)
        with locked(f"{path}.lock", f"look at {name}", wait=wait):
            known = read_json(path)
            if isinstance(known, dict) and known["boot"] == boot_id() and known["begun"] >= asked:
                found: View = known["view"]
                return found
            begun, view = time.monotonic(), look()
            # Read under the lock alone, and worth nothing a moment later: no sync, no rename.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"begun": begun, "boot": boot_id(), "view": view}, file)
            return view
    except (OSError, TimeoutError):
        # No room for it, or who looks does not come back: it is looked at all the same.
        return look()
