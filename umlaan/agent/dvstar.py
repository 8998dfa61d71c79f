"""dvs.tar.gz: the procedure's ``tar cvzf dvs.tar.gz ./dvs``, the same bytes for the same tree."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from typing import Any

from umlaan.agent.atomic import new_file
from umlaan.agent.index import hash_file


def write_tarball(
    folder: str,
    rows: dict[str, list[Any]],
    path: str,
    name: str,
    *,
    more: dict[str, bytes] | None = None,
    level: int = 6,
) -> str:
    """Pack the manifest's rows below ``name/``: sorted, owner root, time 0. The file's sha256.

    more: {path: content} of files that stand in no folder; level: gzip's.
    """
    with (
        new_file(path) as beside,
        open(beside, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=level) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        top = tarfile.TarInfo(name)
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(top)
        for relative in sorted(rows):
            _add(archive, f"{folder}/{relative}", f"{name}/{relative}", rows[relative])
        for relative, content in (more or {}).items():
            info = tarfile.TarInfo(f"{name}/{relative}")
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    return hash_file(path)


def _add(archive: tarfile.TarFile, path: str, name: str, row: list[Any]) -> None:
    kind, mode, content = row
    info = tarfile.TarInfo(name)
    info.mode = 0o755 if kind == "dir" or mode & 0o100 else 0o644
    if kind == "dir":
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    elif kind == "link":
        info.type, info.linkname = tarfile.SYMTYPE, content
        archive.addfile(info)
    else:
        info.size = os.path.getsize(path)
        with open(path, "rb") as file:
            archive.addfile(info, file)
