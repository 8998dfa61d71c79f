"""ccache fills itself from Kbuild's own lists, and still sees another C library."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlaan.agent.kernel_make import ccache_words


@pytest.mark.parametrize("there", [(), ("features.h",), ("features.h", "linux/version.h")])
def test_what_tells_the_librarys_version_is_hashed_where_it_is(
    tmp_path: Path, there: tuple[str, ...]
) -> None:
    for name in there:
        path = tmp_path / "usr/include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    words = ccache_words(str(tmp_path))
    assert words["CCACHE_DEPEND"] == "1"
    # A file that is not there would keep ccache from working at all.
    wanted = ":".join(f"/usr/include/{name}" for name in there) or None
    assert words.get("CCACHE_EXTRAFILES") == wanted
