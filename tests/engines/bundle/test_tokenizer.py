"""Tokenizers: token ids of one length, what is cut, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import BundleError, PromptError


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


@pytest.fixture
def tokenizer(bundle: Bundle) -> Tokenizer:
    return Tokenizer.from_bundle(bundle)


def test_a_long_prompt_keeps_its_first_words_and_the_end_token(tokenizer: Tokenizer) -> None:
    short = tokenizer.encode("a red house")
    end = short.ids[0, -1]  # this bundle pads with the end token
    long = tokenizer.encode("a red house by a lake " * 10)
    assert long.is_truncated
    assert not short.is_truncated
    assert long.ids[0, -1] == end
    assert (long.ids[0, :-1] != end).all()


@pytest.mark.parametrize("text", ["a red house " * 3334, "a" * 1_000_000], ids=["ten thousand words", "one endless word"])
def test_a_text_that_could_hardly_be_read_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(PromptError, match=f"{len(text):,} characters.* reads 16 tokens.* 512 characters at most"):
        tokenizer.encode(text)


def test_a_broken_tokenizer_file_is_a_bundle_error(tmp_path: Path, bundle: Bundle) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{")
    with pytest.raises(BundleError, match="tokenizer"):
        Tokenizer.open(broken, max_length=16, pad="<|endoftext|>")
    with pytest.raises(BundleError, match="padding"):
        Tokenizer.open(bundle.path(bundle.tokenizer.file), max_length=16, pad="<no-such-token>")
    with pytest.raises(BundleError, match="the 1 tokens"):
        Tokenizer.open(bundle.path(bundle.tokenizer.file), max_length=1, pad="<|endoftext|>")
