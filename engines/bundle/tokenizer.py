"""A text encoder's tokenizer: text becomes token ids of one length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.error import BundleError, PromptError

if TYPE_CHECKING:
    from costroute_rt.engines.bundle.bundle import Bundle

_CHARACTERS_PER_TOKEN = 32
"""A text longer than this per token that the text encoder reads is refused: hardly anything of it could show in an image."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text, tokenized."""

    ids: npt.NDArray[np.int64]
    """int64[1, max_length], padded."""
    length: int
    """Tokens that are not padding."""
    is_truncated: bool
    """Whether words at the end were dropped because the text encoder reads no more."""


class Tokenizer:
    """The bundle's tokenizer; `Tokenizer.open` is the only way to get one. Safe to use from several threads."""

    def __init__(self, inner: Any, max_length: int) -> None:
        self._inner = inner
        self._max_length = max_length

    @classmethod
    def open(cls, path: Path, *, max_length: int, pad: str) -> Tokenizer:
        """Read a tokenizer.json; raises BundleError where it is unusable or does not know the padding token."""
        from tokenizers import Tokenizer as Inner

        remedy = "copy or download the bundle again"
        try:
            inner = Inner.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(path, f"it is no usable tokenizer: {error}", remedy) from error
        pad_id = inner.token_to_id(pad)
        if pad_id is None:
            raise BundleError(path, f"it does not know the padding token {pad!r}", remedy)
        inner.enable_truncation(max_length)
        inner.enable_padding(length=max_length, pad_id=pad_id, pad_token=pad)
        if len(inner.encode("").ids) != max_length:
            raise BundleError(path, f"its start and end tokens alone are more than the {max_length} tokens of the manifest", remedy)
        return cls(inner, max_length)

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Tokenizer:
        """The tokenizer the bundle names."""
        spec = bundle.tokenizer
        return cls.open(bundle.path(spec.file), max_length=spec.max_length, pad=spec.pad)

    @property
    def most_characters(self) -> int:
        """Of a text: `encode` refuses a longer one."""
        return self._max_length * _CHARACTERS_PER_TOKEN

    def encode(self, text: str) -> Tokens:
        """Tokens of a checked text; one that is too long loses its last words and keeps the end token.

        Raises PromptError for one that is so long that hardly any of it would be read.
        """
        limit = self.most_characters
        if len(text) > limit:
            problem = f"the prompt has {len(text):,} characters, and the text encoder reads {self._max_length} tokens of it"
            raise PromptError(f"{problem}: shorten it to {limit:,} characters at most")
        encoding = self._inner.encode(text)
        return Tokens(np.array([encoding.ids], dtype=np.int64), sum(encoding.attention_mask), bool(encoding.overflowing))
