"""The texts of a request, as one family reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from costroute_rt.engines.bundle.tokenizer import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Tokens of a prompt and its negative prompt, by tokenizer. Both become as many chunks; the shorter is filled with empty ones."""

    prompt: Mapping[str, Tokens]
    negative: Mapping[str, Tokens] | None
    """None without guidance."""
    empty: Mapping[str, Tokens]
    """Tokens of the empty text."""
    has_zeros: bool
    """Whether zeros take the place of a negative prompt that is missing."""

    @property
    def chunks(self) -> int:
        """Chunks of the longer text."""
        sides = (self.prompt, {} if self.negative is None else self.negative)
        return max((len(tokens) for side in sides for tokens in side.values()), default=1)

    @property
    def is_truncated(self) -> bool:
        """Whether the end of a text was left out."""
        sides = (self.prompt, {} if self.negative is None else self.negative)
        return any(tokens.is_truncated for side in sides for tokens in side.values())

    def filling(self, side: Mapping[str, Tokens], tokenizer: str) -> list[Tokens]:
        """The empty chunks that follow the chunks of one text."""
        return [self.empty[tokenizer]] * (self.chunks - len(side[tokenizer]))

    def kept_chunks(self, tokenizer: str) -> list[Tokens]:
        """What a text encoder reads besides the prompt, and what is kept for later requests: the negative prompt, and empty chunks."""
        found = self.filling(self.prompt, tokenizer)
        if self.negative is not None and not self.has_zeros:
            tokens = self.negative[tokenizer]
            found += [*map(tokens.chunk, range(len(tokens))), *self.filling(self.negative, tokenizer)]
        return found


def chunk_key(chunk: Tokens) -> bytes:
    """What tells chunks of one tokenizer apart."""
    return chunk.ids.tobytes() + chunk.attention_mask.tobytes()
