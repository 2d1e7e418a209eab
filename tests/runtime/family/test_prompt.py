"""Prompts: what is refused, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import ConfigError, PromptError
from costroute_rt.family.family import open_tokenizers
from costroute_rt.request import check_prompt, check_text


@pytest.fixture(scope="module")
def tokenizer(bundle: Bundle) -> Tokenizer:
    return open_tokenizers(bundle)["tokenizer"]


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t", "\u3000"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        check_prompt(prompt)


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\x7f", "\x85"])
def test_control_characters_are_refused_with_their_place(character: str) -> None:
    with pytest.raises(PromptError, match=rf"U\+{ord(character):04X}, at position 3"):
        check_prompt(f"a b{character}c")


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(PromptError, match="surrogate"):
        check_prompt("a house \ud83c")


@pytest.mark.parametrize(
    "prompt", ["a house 🏡", "👩‍👩‍👧 on a beach", "дом у озера", "湖边的红房子", "e\u0301", "two\nlines\tand a tab\r\n", "مرحبا"]
)
def test_any_other_unicode_is_welcome(prompt: str, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(check_prompt(prompt))
    assert tokens.ids.shape == (1, 16)
    assert tokens.ids.dtype == np.int64


@pytest.mark.parametrize("prompt", [None, 7, b"a house", ["a house"]])
def test_what_is_no_text_is_refused(prompt: object) -> None:
    with pytest.raises(ConfigError, match="text"):
        check_prompt(prompt)


def test_a_negative_prompt_may_be_empty_but_has_no_control_characters() -> None:
    assert check_text("negative prompt", "") == ""
    with pytest.raises(PromptError, match="negative prompt"):
        check_text("negative prompt", "a\0b")
