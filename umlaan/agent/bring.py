"""Artifacts from the builder to the lab host: a folder with a stamp.json travels as one file.

``bring ready FOLDER FILE|-`` makes the folder into which it is put, and the file there that nobody
else can write: a state folder is marked before anything stands in it. ``bring pack FOLDER FILE`` on
the builder, ``bring take FILE FOLDER`` on the lab host (unpacked beside, renamed, so that a cut-off
copy is never seen), ``bring state FOLDER CACHE`` tells what is there: its stamp and whether the
artifact is the one that the stamp speaks of.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from umlaan.agent import kernel_state, unpack
from umlaan.agent.atomic import new_file, new_folder
from umlaan.agent.chamber import BuildError
from umlaan.agent.files import read_json


def pack(folder: str, file: str) -> None:
    """One tar file of the folder's content, lightly compressed: the way is often slower."""
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with new_file(file) as made:
        words = ["tar", "-C", folder, "-I", "gzip -1", "-cf", made, "."]
        subprocess.run(words, stdin=subprocess.DEVNULL, check=True)


def take(file: str, folder: str) -> None:
    """Unpack beside and rename; the file goes."""
    # An earlier umlaan's, where its run was killed.
    for left in (f"{folder}.new", f"{folder}.old"):
        shutil.rmtree(left, ignore_errors=True)
    with new_folder(folder) as made:
        # A DVS tree of its user's may link to elsewhere, and was built so.
        unpack.unpack(file, made, outside=True)
        if not isinstance(read_json(f"{made}/stamp.json"), dict):
            raise ValueError(f"{file}: holds no stamp.json: not a whole artifact")
    os.unlink(file)


def main(argv: list[str]) -> int:
    """The ``bring`` verb."""
    verb, first, second = argv
    if verb == "state":
        stamp = read_json(f"{first}/stamp.json")
        stamp = stamp if isinstance(stamp, dict) and "inputs" in stamp else None
        state = kernel_state.artifact(first, stamp, second) if stamp else "not there"
        print(json.dumps({"stamp": stamp, "artifact": state}))
        return 0
    if verb == "ready":
        os.makedirs(first, exist_ok=True)
        if second != "-":
            # Root unpacks it: nobody else may write to it meanwhile, whatever the umask is there.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(second, flags, 0o600)
            os.fchmod(descriptor, 0o600)
            os.close(descriptor)
        return 0
    try:
        (pack if verb == "pack" else take)(first, second)
    except (BuildError, OSError, ValueError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
