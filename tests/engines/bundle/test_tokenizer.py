"""Tokenizers: padding, truncation, templates, and refused texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Inner
from tokenizers import models, pre_tokenizers

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import BundleError, PromptError


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


@pytest.fixture
def tokenizer(bundle: Bundle) -> Tokenizer:
    spec = bundle.tokenizers["tokenizer"]
    return Tokenizer.open(bundle.path(spec.file), max_length=spec.max_length, pad=spec.pad_id)


def test_a_long_prompt_keeps_its_first_words_and_the_end_token(tokenizer: Tokenizer) -> None:
    short = tokenizer.encode("a red house")
    end = short.ids[0, -1]  # this bundle pads with the end token
    long = tokenizer.encode("a red house by a lake " * 10)
    assert long.is_truncated
    assert not short.is_truncated
    assert long.ids[0, -1] == end
    assert (long.ids[0, :-1] != end).all()
    assert long.ids[0, : short.length - 1].tolist() == short.ids[0, : short.length - 1].tolist()
    assert long.length == 16


@pytest.mark.parametrize("text", ["a red house " * 3334, "a" * 1_000_000], ids=["ten thousand words", "one endless word"])
def test_a_text_beyond_the_character_limit_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(PromptError, match=f"{len(text):,} characters.* reads 16 tokens.* 512 characters at most"):
        tokenizer.encode(text)


def test_a_broken_tokenizer_file_is_a_bundle_error(tmp_path: Path, bundle: Bundle) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{")
    with pytest.raises(BundleError, match="tokenizer"):
        Tokenizer.open(broken, max_length=16, pad="<|endoftext|>")
    with pytest.raises(BundleError, match="padding"):
        Tokenizer.open(bundle.path(bundle.tokenizers["tokenizer"].file), max_length=16, pad="<no-such-token>")
    with pytest.raises(BundleError, match="padding token 9999"):
        Tokenizer.open(bundle.path(bundle.tokenizers["tokenizer"].file), max_length=16, pad=9999)
    with pytest.raises(BundleError, match="more than the 1 tokens"):
        Tokenizer.open(bundle.path(bundle.tokenizers["tokenizer"].file), max_length=1, pad="<|endoftext|>")


def test_padding_may_be_on_the_left(bundle: Bundle) -> None:
    path = bundle.path("tokenizer/tokenizer.json")
    tokenizers = [Tokenizer.open(path, max_length=16, pad="<|endoftext|>", pad_side=side) for side in ("left", "right")]
    left, right = (tokenizer.encode("a red house") for tokenizer in tokenizers)
    assert left.length == right.length < 16
    assert left.ids[0, -left.length :].tolist() == right.ids[0, : right.length].tolist()
    assert left.attention_mask[0].tolist() == right.attention_mask[0, ::-1].tolist()


def test_the_template_surrounds_the_prompt(bundle: Bundle) -> None:
    path = bundle.path("tokenizer/tokenizer.json")
    plain = Tokenizer.open(path, max_length=16, pad="<|endoftext|>")
    tokenizer = Tokenizer.open(path, max_length=16, pad="<|endoftext|>", template=("draw ", " now"), drop=2)
    assert tokenizer.encode("a Red house").ids.tolist() == plain.encode("draw a Red house now").ids.tolist()
    assert tokenizer.drop == 2


@pytest.mark.parametrize(
    ("template", "drop", "problem"),
    [(("a red house by a lake " * 5, ""), 0, "has 16 tokens: .*fewer than 16"), (("", ""), 2, "has 2 tokens: expected more than 2")],
    ids=["too long", "all dropped"],
)
def test_a_template_leaves_room_for_the_prompt_and_tokens_that_are_not_dropped(
    bundle: Bundle, template: tuple[str, str], drop: int, problem: str
) -> None:
    with pytest.raises(BundleError, match=problem):
        Tokenizer.open(bundle.path("tokenizer/tokenizer.json"), max_length=16, pad="<|endoftext|>", template=template, drop=drop)


def test_special_tokens_in_a_prompt_are_refused_only_with_a_template(bundle: Bundle) -> None:
    path = bundle.path("tokenizer/tokenizer.json")
    inner = Inner.from_file(str(path))
    special = next((token.content for token in inner.get_added_tokens_decoder().values() if token.special), None)
    assert special is not None
    Tokenizer.open(path, max_length=16, pad="<|endoftext|>").encode(f"a house {special}")
    with pytest.raises(PromptError, match="remove it"):
        Tokenizer.open(path, max_length=16, pad="<|endoftext|>", template=("draw ", "")).encode(f"a house {special}")


def test_the_longest_text_that_is_read_has_32_characters_per_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a" * tokenizer.most_characters).is_truncated
    with pytest.raises(PromptError):
        tokenizer.encode("a" * (tokenizer.most_characters + 1))


@pytest.mark.parametrize("lower_case", [True, False])
def test_the_prompt_is_lower_cased_and_stripped_if_the_bundle_asks_for_it_but_not_its_template(tmp_path: Path, lower_case: bool) -> None:
    inner = Inner(models.WordLevel({word: i for i, word in enumerate(("?", "A", "a", "Red", "red", "Now", "now", " "))}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    inner.save(str(tmp_path / "tokenizer.json"))
    how = {"max_length": 9, "pad": "?", "template": ("A ", " Now"), "lower_case": lower_case}
    tokens = Tokenizer.open(tmp_path / "tokenizer.json", **how).encode(" A Red ")
    words = [inner.id_to_token(i) for i in tokens.ids[0, : tokens.length].tolist()]
    assert words == (["A", " ", "a", " ", "red", " ", "Now"] if lower_case else ["A", " ", " ", "A", " ", "Red", " ", " ", "Now"])
