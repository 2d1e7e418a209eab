"""Tokenizers: from a prompt to the tokens that a text encoder reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.tokenizer_file import read_tokenizer
from costroute_rt.error import BundleError, PromptError
from costroute_rt.regular_file import ReadFile, read_regular

_CHARACTERS_PER_TOKEN = 32
"""Limit of characters per token that the text encoder reads; of a longer text, most words would be ignored."""
_MOST_TOKENS, _MOST_CHARACTERS = 1 << 16, 1 << 16
_LONGEST_REASON = 300
_REMEDY = "copy or download the bundle again"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text, tokenized."""

    ids: npt.NDArray[np.int64]
    """int64[1, max_length], padded."""
    attention_mask: npt.NDArray[np.int64]
    """int64[1, max_length]: 1 for a token, 0 for padding."""
    is_truncated: bool
    """Whether words at the end were dropped because of the text encoder's limit."""

    @property
    def length(self) -> int:
        """Tokens that are not padding."""
        return int(self.attention_mask.sum())


class Tokenizer:
    """A tokenizer.json with its padding and template; made by `open`. Safe to use from several threads."""

    def __init__(self, inner: Any, path: Path, max_length: int, template: tuple[str, str], *, drop: int, lower_case: bool) -> None:
        self._inner, self._path, self._max_length, self._lower_case = inner, path, max_length, lower_case
        self._prefix, self._suffix = template
        self.drop = drop
        """Leading tokens that are cut from the encoders' outputs."""
        added = inner.get_added_tokens_decoder().values() if any(template) else ()
        self._refused = tuple(token.content for token in added if token.special)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        max_length: int,
        pad: int | str,
        pad_side: str = "right",
        template: tuple[str, str] = ("", ""),
        drop: int = 0,
        lower_case: bool = False,
        read: ReadFile = read_regular,
    ) -> Tokenizer:
        """Read a tokenizer.json; raises BundleError if it is unusable or not supported, or has no such padding token.

        pad: id or text of the padding token. template: text before and after each prompt.
        drop: leading tokens that are cut from the encoders' outputs. read: reads the file.
        """
        from tokenizers import Tokenizer as Inner

        if not 1 <= max_length <= _MOST_TOKENS:
            raise BundleError(path, f"the manifest gives it {max_length} tokens: expected 1 to {_MOST_TOKENS}", _REMEDY)
        with _library_errors(path):
            inner = Inner.from_str(read_tokenizer(path, read))
            pad_id, pad_token = (inner.token_to_id(pad), pad) if isinstance(pad, str) else (pad, inner.id_to_token(pad))
        if pad_id is None or pad_token is None:
            raise BundleError(path, f"it has no padding token {pad!r}", _REMEDY)
        with _library_errors(path):
            inner.enable_truncation(max_length)
            inner.enable_padding(direction=pad_side, length=max_length, pad_id=pad_id, pad_token=pad_token)
            tokens_of_nothing = len(inner.encode("").ids)
            own = inner.encode("".join(template))
        if tokens_of_nothing != max_length:
            raise BundleError(path, f"its start and end tokens alone are more than the {max_length} tokens of the manifest", _REMEDY)
        if own.overflowing or (drop and sum(own.attention_mask) <= drop):
            problem = f"its template alone has {sum(own.attention_mask)} tokens: expected more than {drop} and fewer than {max_length}"
            raise BundleError(path, problem, _REMEDY)
        return cls(inner, path, max_length, template, drop=drop, lower_case=lower_case)

    @property
    def most_characters(self) -> int:
        """Length of the longest text that `encode` accepts."""
        return min(self._max_length * _CHARACTERS_PER_TOKEN, _MOST_CHARACTERS)

    def encode(self, text: str) -> Tokens:
        """Tokens of a text within the template; with too many tokens the end is cut, the template's suffix included, as in diffusers.

        Raises PromptError if the text is longer than `most_characters`, or if a tokenizer with a template finds one of its special tokens
        in it, which could end the template early; BundleError if the tokenizer fails.
        """
        limit = self.most_characters
        if len(text) > limit:
            problem = f"the prompt has {len(text):,} characters, but the text encoder reads {self._max_length} tokens"
            raise PromptError(f"{problem}: shorten it to {limit:,} characters at most")
        special = next((token for token in self._refused if token in text), None)
        if special is not None:
            raise PromptError(f"the prompt contains {special}, a special token of this model: remove it")
        text = text.lower().strip() if self._lower_case else text
        with _library_errors(self._path):
            encoding = self._inner.encode(self._prefix + text + self._suffix)
        ids, mask = (np.array([values], dtype=np.int64) for values in (encoding.ids, encoding.attention_mask))
        return Tokens(ids, mask, bool(encoding.overflowing))


@contextmanager
def _library_errors(path: Path) -> Iterator[None]:
    """Turns what the library raises into BundleError: bare Exception, and for a panic of its Rust code a BaseException."""
    try:
        yield
    except (BundleError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise BundleError(path, f"it is not a usable tokenizer: {reason[:_LONGEST_REASON]}", _REMEDY) from error
