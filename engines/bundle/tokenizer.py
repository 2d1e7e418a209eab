"""Tokenizers: from a prompt to the tokens that a text encoder reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.chunk import Chunks
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
    """One text, tokenized: one row for each chunk, which is what a text encoder reads at once."""

    ids: npt.NDArray[np.int64]
    """int64[chunks, max_length], padded."""
    attention_mask: npt.NDArray[np.int64]
    """int64[chunks, max_length]: 1 for a token, 0 for padding."""
    is_truncated: bool
    """Whether words at the end were dropped because of the text encoder's limit."""
    weights: npt.NDArray[np.float64] | None = None
    """float64[chunks, max_length], by which the states of each token are multiplied; None if all are 1."""

    @property
    def length(self) -> int:
        """Tokens of the first chunk that are not padding."""
        return int(self.attention_mask[0].sum())

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.ids)

    def chunk(self, index: int) -> Tokens:
        """One chunk, without its weights."""
        rows = slice(index, index + 1)
        return Tokens(self.ids[rows], self.attention_mask[rows], self.is_truncated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking:
    """What chunks are made of."""

    most: int
    """Chunks of one prompt."""
    empty: Tokens
    """The chunk of the empty text: start, end, padding."""
    comma: int | None
    """The token of a comma; None if it has none of its own."""


class Tokenizer:
    """A tokenizer.json with its padding and template; made by `open`. Safe to use from several threads."""

    def __init__(self, inner: Any, path: Path, max_length: int, template: tuple[str, str], *, drop: int, lower_case: bool) -> None:
        self._inner, self._path, self._max_length, self._lower_case = inner, path, max_length, lower_case
        self._prefix, self._suffix = template
        self.drop = drop
        """Leading tokens that are cut from the encoders' outputs."""
        added = inner.get_added_tokens_decoder().values() if any(template) else ()
        self._refused = tuple(token.content for token in added if token.special)
        self.chunking: Chunking | None = None
        """How a prompt with weights is divided into chunks; None if prompts have no syntax."""

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
        most_chunks: int = 0,
        read: ReadFile = read_regular,
    ) -> Tokenizer:
        """Read a tokenizer.json; raises BundleError if it is unusable or not supported, or has no such padding token.

        pad: id or text of the padding token. template: text before and after each prompt.
        drop: leading tokens that are cut from the encoders' outputs. read: reads the file.
        most_chunks: chunks of a prompt with weights (`encode_chunks`); 0 if prompts have no syntax.
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
        tokenizer = cls(inner, path, max_length, template, drop=drop, lower_case=lower_case)
        if most_chunks:
            tokenizer.chunking = tokenizer._find_chunking(most_chunks)
        return tokenizer

    def _find_chunking(self, most: int) -> Chunking:
        """Raises BundleError if a chunk is not a start token, the text, an end token and the padding."""
        with _library_errors(self._path):
            encoding = self._inner.encode("")
            ids, mask = (np.array([values], dtype=np.int64) for values in (encoding.ids, encoding.attention_mask))
            comma = self._inner.encode(",", add_special_tokens=False)
        empty = Tokens(ids, mask, is_truncated=False)
        if empty.length != 2 or not empty.attention_mask[0, :2].all() or self._max_length < 3:
            problem = f"prompts with weights need a start and an end token around a text of {self._max_length} tokens"
            raise BundleError(self._path, f"{problem}, and padding after it; it has {empty.length}", _REMEDY)
        found = [token for token, is_own in zip(comma.ids, comma.attention_mask, strict=True) if is_own]
        is_known = len(found) == 1 and found[0] not in empty.ids[0]
        return Chunking(most=most, empty=empty, comma=found[0] if is_known else None)

    @property
    def most_characters(self) -> int:
        """Length of the longest text that `encode` accepts, and `encode_chunks` for each chunk."""
        return min(self._max_length * _CHARACTERS_PER_TOKEN, _MOST_CHARACTERS)

    def encode(self, text: str) -> Tokens:
        """Tokens of a text within the template; with too many tokens the end is cut, the template's suffix included, as in diffusers.

        Raises PromptError if the text is longer than `most_characters`, or if a tokenizer with a template finds one of its special tokens
        in it, which could end the template early; BundleError if the tokenizer fails.
        """
        self.check_length(text)
        special = next((token for token in self._refused if token in text), None)
        if special is not None:
            raise PromptError(f"the prompt contains {special}, a special token of this model: remove it")
        with _library_errors(self._path):
            encoding = self._inner.encode(self._prefix + self._prepared(text) + self._suffix)
        ids, mask = (np.array([values], dtype=np.int64) for values in (encoding.ids, encoding.attention_mask))
        return Tokens(ids, mask, bool(encoding.overflowing))

    def encode_chunks(self, sections: Sequence[Sequence[tuple[str, float]]]) -> Tokens:
        """Tokens of a prompt in pieces with weights, as many chunks as it needs; those beyond the limit are left out.

        sections: the pieces between one BREAK and the next; the next section begins a new chunk.
        Raises BundleError if the tokenizer fails.
        """
        chunking = self.chunking or self._find_chunking(1)
        room = self._max_length - chunking.empty.length
        found = [[(self._ids(text), weight) for text, weight in section] for section in sections]
        chunks, is_truncated = Chunks(room, chunking.comma, chunking.most).fill(found)
        ids, mask = (np.repeat(row, len(chunks), axis=0) for row in (chunking.empty.ids, chunking.empty.attention_mask))
        weights = np.ones(ids.shape)
        for row, chunk in enumerate(chunks):
            end = 1 + len(chunk)
            ids[row, 1:end] = [token for token, _ in chunk]
            ids[row, end] = chunking.empty.ids[0, 1]
            mask[row, : end + 1] = 1
            weights[row, 1:end] = [weight for _, weight in chunk]
        return Tokens(ids, mask, is_truncated, None if (weights == 1).all() else weights)

    def check_length(self, text: str, chunks: int = 1) -> None:
        """Raises PromptError if the text is longer than `most_characters` for each of so many chunks."""
        limit = min(chunks * self.most_characters, _MOST_CHARACTERS)
        if len(text) > limit:
            problem = f"the prompt has {len(text):,} characters, but the text encoder reads {chunks * self._max_length} tokens"
            raise PromptError(f"{problem}: shorten it to {limit:,} characters at most")

    def _ids(self, text: str) -> list[int]:
        """The tokens of a text alone, without a limit."""
        with _library_errors(self._path):
            encoding = self._inner.encode(self._prepared(text), add_special_tokens=False)
        parts = (encoding, *encoding.overflowing)
        return [token for part in parts for token, is_own in zip(part.ids, part.attention_mask, strict=True) if is_own]

    def _prepared(self, text: str) -> str:
        return text.lower().strip() if self._lower_case else text


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
