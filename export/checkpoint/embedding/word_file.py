"""The file beside a tokenizer that tells its learned words, and the characters that stand for their vectors inside a tokenizer.json.

A tokenizer.json has no way to make several tokens of one word. But it may replace texts before it divides them: so each vector is a token
of one character, and the word is replaced by the characters of its vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.weight_file import read_config

_FILE = "learned_words.json"
CHARACTERS = tuple(map(chr, range(0x14400, 0x14647)))
"""Anatolian hieroglyphs, which no prompt is written in, and which no normalizer changes."""
MOST_WORDS = 24
"""A tokenizer.json may have 32 normalizers in all."""
_WRONG = "remove the file, and add the textual inversions again"


def write_words(folder: Path, words: Mapping[str, range]) -> None:
    """words: the tokens of each word. Raises OSError."""
    rows = {word: [tokens.start, len(tokens)] for word, tokens in words.items()}
    (folder / _FILE).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def read_words(folder: Path) -> dict[str, range]:
    """The learned words of a tokenizer with their tokens, empty if it has none; raises BundleError."""
    path = folder / _FILE
    if not path.exists():
        return {}
    words = {}
    for word, row in read_config(path).items():
        if not (isinstance(row, list) and len(row) == 2 and all(type(each) is int and 0 < each < 1 << 24 for each in row)):
            raise BundleError(path, "it does not give a first token and a number of tokens for each word", _WRONG)
        words[word] = range(row[0], row[0] + row[1])
    if sum(map(len, words.values())) > len(CHARACTERS) or len(words) > MOST_WORDS:
        raise BundleError(path, f"it has more than {MOST_WORDS} words, or more than {len(CHARACTERS)} vectors", _WRONG)
    return words
