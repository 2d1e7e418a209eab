"""tokenizer.json gives the ids of transformers' CLIPTokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.export.conftest import Exported
from tests.export.small_checkpoint import TOKENS, needs_export, write_tokenizer

pytestmark = needs_export

ODD = (
    "", "the red cat", "  The CAT's !! ?!  ", "\t\r\n ", "a\x00b\x07c\ufffdd\x1be", "中文cat一", "e\u0301 E\u0301 é", "ΟΔΟΣ ΣΟΣ Σ dΣ'd",
    "İstanbul ıI", "<|endoftext|> x <|STARTOFTEXT|>y<|startoftext|>", "<|endo\x00ftext|>", "x" * 300, "the " * 100,
    "a\u2028b\u00a0c\u3000d\u200bE", "1234 ½ ² ٣", "don't 'ſ I'LL we'VE 'RE 'D", "👩\u200d👩\u200d👧 🙂 🇩🇪", "\ue000", "a_b-c/d\\e",
    "ß ẞ ﬁ ǅ", "!!'s's", "cat'sing the'", "é" * 50, "\u202eright to left\u202c", "अनुच्छेद ภาษาไทย 한국어 العربية",
)  # fmt: skip
LETTERS = "aTtheE'sSdDlLvVcCaAtT<|>!?1½ \t\n\u3000\x00é\u0301中文İßſ👍\u200d\u2028.,-_"


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, padding="max_length", max_length=TOKENS, truncation=True).input_ids)


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_unusual_texts_have_the_ids_of_transformers(exported: Exported, text: str) -> None:
    from tokenizers import Tokenizer

    ours = Tokenizer.from_file(str(exported.bundle.path("tokenizer/tokenizer.json")))
    assert ours.encode(text).ids == ids(exported.pipeline.tokenizer, text)
    assert len(ours.encode(text).ids) == TOKENS


@pytest.mark.parametrize("drop", ["", "zq~"], ids=["all_bytes", "bytes_missing"])
def test_random_texts_have_the_ids_of_transformers(tmp_path: Path, drop: str) -> None:
    from costroute_rt.export.checkpoint.tokenizer import convert_clip_tokenizer

    theirs = write_tokenizer(tmp_path, drop)
    ours = convert_clip_tokenizer(theirs, TOKENS)
    rng = random.Random(0)
    for _ in range(1000):
        text = "".join(rng.choice(LETTERS) for _ in range(rng.randrange(1, 40)))
        assert ours.encode(text).ids == ids(theirs, text), ascii(text)
