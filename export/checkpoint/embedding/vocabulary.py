"""The words of a CLIP tokenizer in a folder, and copies of such folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.embedding.word_file import write_words
from costroute_rt.export.checkpoint.tensor.writer import output_errors
from costroute_rt.export.checkpoint.weight_file import read_config
from costroute_rt.regular_file import read_regular

_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
"""What transformers saves of a CLIP tokenizer."""
_MOST_BYTES = 64 << 20
_END = "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Every token of a tokenizer that is a text."""

    words: frozenset[str]
    """At the end of a word they have `</w>` at their end."""
    end: int
    """Number of the end token."""

    @classmethod
    def read(cls, folder: Path) -> Vocabulary:
        """Raises BundleError for a folder without a vocabulary, or with one that has no end token."""
        words = _read_words(folder)
        end = words.get(_END)
        if type(end) is not int:
            raise BundleError(folder, f"its vocabulary has no {_END}, so it is no tokenizer of CLIP", "download the whole checkpoint")
        return cls(words=frozenset(words), end=end)


def copy_tokenizer(folder: Path, target: Path, words: Mapping[str, range]) -> Path:
    """Copies the files of a tokenizer to the folder `target`, with learned words and their tokens; returns `target`. Raises OutputError."""
    with output_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            path, copy = folder / name, target / name
            data = read_regular(path, _MOST_BYTES) if path.exists() else None
            if data is not None:
                copy.write_bytes(data)
            else:
                copy.unlink(missing_ok=True)
        write_words(target, words)
    return target


def _read_words(folder: Path) -> dict[str, Any]:
    """Numbers by token: the vocabulary, and what was added to it."""
    if (folder / "vocab.json").exists():
        words = read_config(folder / "vocab.json")
        return words | (read_config(folder / "added_tokens.json") if (folder / "added_tokens.json").exists() else {})
    if not (folder / "tokenizer.json").exists():
        raise BundleError(folder, "it has neither vocab.json nor tokenizer.json", "download the whole checkpoint")
    whole = read_config(folder / "tokenizer.json")
    model, added = whole.get("model"), whole.get("added_tokens") or []
    found = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(found, dict) or not isinstance(added, list):
        raise BundleError(folder / "tokenizer.json", "it has no vocabulary of CLIP", "download the whole checkpoint")
    return found | {each["content"]: each.get("id") for each in added if isinstance(each, dict) and isinstance(each.get("content"), str)}
