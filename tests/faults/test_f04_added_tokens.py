"""F4: tokens of textual inversion were split into letters; they keep their ids, or the export names them and refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.error import BundleError
from tests.export.small_checkpoint import TOKENS as LENGTH
from tests.export.small_checkpoint import needs_export, write_tokenizer
from tests.faults.exported_oddity import TOKENS

pytestmark = needs_export

TEXTS = (
    "{0}", "a photo of {0} in the rain", "{0}{0}", "{0} {0}", "the {0}, red", "  {0}  ", "x{0}y", "{0}'s cat", "({0})", "{0}!",
    "<|startoftext|>{0}<|endoftext|>", "{0}\n{0}", "\u00e9{0}\u4e2d{0}", "{0}_1", "{0}_2", "THE {0} CAT", "{0}{1}", "{1}{0} {1}",
)  # fmt: skip
VOCABULARY = 1024


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, padding="max_length", max_length=LENGTH, truncation=True).input_ids)


def convert(tokenizer: Any, path: Path) -> Any:
    """As the export converts it, through a file."""
    from tokenizers import Tokenizer

    from costroute_rt.export.checkpoint.tokenizer import check_tokenizer, convert_clip_tokenizer

    converted = convert_clip_tokenizer(tokenizer, LENGTH)
    check_tokenizer(tokenizer, converted, VOCABULARY, path)
    converted.save(str(path / "converted.json"))
    return Tokenizer.from_file(str(path / "converted.json"))


def compare(tokenizer: Any, path: Path) -> None:
    from costroute_rt.export.checkpoint.tokenizer import added_tokens

    converted, added = convert(tokenizer, path), [token.content for token in added_tokens(tokenizer).values()]
    for number, token in enumerate(added):
        assert tokenizer.convert_tokens_to_ids(token) == converted.token_to_id(token)
        for text in TEXTS:
            for each in (token, token.upper(), token.lower(), token[1:]):
                filled = text.format(each, added[number - 1])
                assert converted.encode(filled).ids == ids(tokenizer, filled), ascii(filled)


def added(*tokens: Any, special: bool = False) -> Any:
    def add(tokenizer: Any) -> None:
        tokenizer.add_tokens(list(tokens), special_tokens=special)

    return add


def token(text: str, **options: Any) -> Any:
    from transformers import AddedToken

    return AddedToken(text, **options)


KINDS: dict[str, Any] = {
    "one": lambda tokenizer: added("<my-cat>")(tokenizer),
    "several vectors": lambda tokenizer: added("<my-cat>", "<my-cat>_1", "<my-cat>_2", "<my-cat>_10")(tokenizer),
    "several vectors, longest first": lambda tokenizer: added("<my-cat>_1", "<my-cat>")(tokenizer),
    "upper case": lambda tokenizer: added("<My-Cat>", "EasyNegative")(tokenizer),
    "both cases": lambda tokenizer: added("<my-cat>", "<My-Cat>")(tokenizer),
    "a plain word": lambda tokenizer: added("cat", "easynegative")(tokenizer),
    "blanks": lambda tokenizer: added("my cat", "a  b")(tokenizer),
    "one letter": lambda tokenizer: added("c", "\u00e9")(tokenizer),
    "special": lambda tokenizer: added("<my-cat>", special=True)(tokenizer),
    "additional special": lambda tokenizer: tokenizer.add_special_tokens({"additional_special_tokens": ["<a>", "<b c>"]}),
    "not normalized": lambda tokenizer: added(token("<My-Cat>", normalized=False))(tokenizer),
    "normalized": lambda tokenizer: added(token("<My-Cat>", normalized=True))(tokenizer),
    "blanks on the left": lambda tokenizer: added(token("<my-cat>", lstrip=True))(tokenizer),
    "blanks on the right": lambda tokenizer: added(token("<my-cat>", rstrip=True))(tokenizer),
    "other scripts": lambda tokenizer: added("\u732b", "<\u043a\u043e\u0442>", "\U0001f431")(tokenizer),
    "a pad token": lambda tokenizer: tokenizer.add_special_tokens({"pad_token": "!"}),
    "a new pad token": lambda tokenizer: tokenizer.add_special_tokens({"pad_token": "<pad>"}),
    "many": lambda tokenizer: added(*(f"<t{index}>" for index in range(100)))(tokenizer),
}


@pytest.mark.parametrize("name", KINDS)
def test_f4_added_tokens_have_the_ids_of_transformers(tmp_path: Path, name: str) -> None:
    tokenizer = write_tokenizer(tmp_path)
    KINDS[name](tokenizer)
    compare(tokenizer, tmp_path)


@pytest.mark.parametrize("name", KINDS)
def test_f4_they_are_read_from_a_saved_checkpoint(tmp_path: Path, name: str) -> None:
    from costroute_rt.export.checkpoint.tokenizer import load_clip_tokenizer

    tokenizer = write_tokenizer(tmp_path / "first")
    KINDS[name](tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = load_clip_tokenizer(tmp_path / "saved")
    assert loaded.get_vocab() == tokenizer.get_vocab()
    compare(loaded, tmp_path)


def test_f4_random_texts_with_added_tokens_agree(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    tokenizer.add_tokens([*TOKENS, "the", "caT"])
    converted, drawn = convert(tokenizer, tmp_path), random.Random(0)
    pieces = [*TOKENS, *"aTtheECcAa<>-_1 ", "the", "cat", "CAT", "two", " words", "<my-", "cat>", "<|endoftext|>"]
    for _ in range(1000):
        text = "".join(drawn.choice(pieces) for _ in range(drawn.randrange(1, 12)))
        assert converted.encode(text).ids == ids(tokenizer, text), ascii(text)


def test_f4_a_token_that_would_be_read_in_another_way_is_refused_by_name(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    tokenizer.add_tokens([token("cat", single_word=True), "<good>"])
    with pytest.raises(BundleError, match=r"its added tokens 'cat' cannot be converted.*; remove them, or add them without single_word"):
        convert(tokenizer, tmp_path)


def test_f4_a_token_without_an_embedding_is_refused_by_name(tmp_path: Path) -> None:
    from costroute_rt.export.checkpoint.tokenizer import check_tokenizer, convert_clip_tokenizer

    tokenizer = write_tokenizer(tmp_path)
    size = len(tokenizer)
    tokenizer.add_tokens(["<my-cat>", "<my-dog>"])
    converted = convert_clip_tokenizer(tokenizer, LENGTH)
    check_tokenizer(tokenizer, converted, size + 2, tmp_path)
    with pytest.raises(BundleError, match=rf"has {size + 1} embeddings, but none for '<my-dog>'; .*resize_token_embeddings"):
        check_tokenizer(tokenizer, converted, size + 1, tmp_path)
    with pytest.raises(BundleError, match="none for '<my-cat>', '<my-dog>'"):
        check_tokenizer(tokenizer, converted, size, tmp_path)


def test_f4_a_tokenizer_json_alone_is_enough(tmp_path: Path) -> None:
    from transformers import CLIPTokenizerFast

    from costroute_rt.export.checkpoint.tokenizer import load_clip_tokenizer

    tokenizer = write_tokenizer(tmp_path / "slow")
    tokenizer.add_tokens(["<my-cat>", "Big Dog"])
    tokenizer.save_pretrained(tmp_path / "slow")
    CLIPTokenizerFast.from_pretrained(tmp_path / "slow").save_pretrained(tmp_path / "fast")
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (tmp_path / "fast" / name).unlink(missing_ok=True)
    loaded = load_clip_tokenizer(tmp_path / "fast")
    assert loaded.get_vocab() == tokenizer.get_vocab()
    compare(loaded, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("vocab.json", "version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        ("merges.txt", "version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        ("vocab.json", "[]", "does not hold a JSON object"),
        ("special_tokens_map.json", "{", "not valid JSON"),
        ("vocab.json", "{}", "its vocabulary cannot be used"),
        ("vocab.json", None, "neither vocab.json and merges.txt nor tokenizer.json"),
        ("merges.txt", None, "neither vocab.json and merges.txt nor tokenizer.json"),
    ],
)
def test_f4_a_damaged_tokenizer_is_refused(tmp_path: Path, name: str, content: str | None, problem: str) -> None:
    from costroute_rt.export.checkpoint.tokenizer import read_clip_tokenizer

    write_tokenizer(tmp_path).save_pretrained(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(BundleError, match=problem):
        read_clip_tokenizer(tmp_path, max_length=LENGTH, vocabulary=VOCABULARY)


def test_f4_the_bundle_reads_them(oddity: Path) -> None:
    from transformers import CLIPTokenizer

    from costroute_rt.engines.bundle.bundle import Bundle
    from costroute_rt.family.family import Family

    tokenizer = CLIPTokenizer.from_pretrained(oddity / "checkpoint" / "tokenizer")
    ours = Family.open(Bundle.open(oddity / "bundle")).tokenizers["tokenizer"]
    for text in ("<my-cat> the cat", "<my-cat>_1<My-Dog>", "two words", "TWO WORDS <MY-CAT>"):
        assert ours.encode(text).ids[0].tolist() == ids(tokenizer, text)
    assert tokenizer.convert_tokens_to_ids("<my-cat>") in ours.encode("<my-cat>").ids
    assert json.loads((oddity / "bundle" / "tokenizer" / "added_tokens.json").read_text()).keys() >= set(TOKENS)
