"""docs/data.md is what the models say."""

from __future__ import annotations

from pathlib import Path

from umlaan.plan.reference import reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text() == reference(), "run: python -m umlaan.plan.reference > docs/data.md"


def test_every_key_of_a_noun_is_there() -> None:
    text = reference()
    for key in ("network.bridge", "kernel.source.package", "node.mem", "dvs.programs.proxy"):
        assert f"`{key}`" in text
