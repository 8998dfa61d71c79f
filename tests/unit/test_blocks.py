"""Marked blocks: what is the user's stays byte for byte."""

from __future__ import annotations

import pytest

from umlaan.agent.blocks import with_block, without

TEXTS = ["", "one\n", "one\ntwo", "one\r\ntwo\r\n", "\n\n", "caf\u00e9\n# umlaan:other begin\nx\n"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("on_top", [True, False])
def test_in_and_out_gives_the_text_again(text: str, on_top: bool) -> None:
    there = with_block(text, "umlaan:lab", ["a", "b"], on_top=on_top)
    back = without(there, "umlaan:lab")
    # A missing newline at the end is made up for when the block goes behind it.
    glued = text + "\n" if text == "one\ntwo" and not on_top else text
    assert back == glued
    assert with_block(there, "umlaan:lab", ["a", "b"], on_top=on_top) == there


def test_a_block_is_replaced_where_it_stands() -> None:
    text = "above\n# m begin\nold\n# m end\nbelow\n"
    assert with_block(text, "m", ["new"]) == "above\n# m begin\nnew\n# m end\nbelow\n"


def test_a_block_without_its_end_takes_nothing_along() -> None:
    assert without("a\n# m begin\nb\nc\n", "m") == "a\nb\nc\n"


def test_another_labs_block_stays() -> None:
    text = with_block("x\n", "umlaan:a", ["1"])
    both = with_block(text, "umlaan:ab", ["2"])
    assert without(both, "umlaan:ab") == text
    assert without(both, "umlaan:a") == with_block("x\n", "umlaan:ab", ["2"])
