"""A textual inversion: a word with vectors of its own (Gal et al. 2022, arXiv 2208.01618), whose numbers stay in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from costroute_rt.engines.bundle.safetensors_file import StoredTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A file that was checked: its layout is known, it is complete, and its numbers are finite."""

    path: Path
    sha256: str
    name: str
    """What stands for it in prompts."""
    vectors: Mapping[str, StoredTensor]
    """By text encoder: [vectors, width] or [width]."""

    @property
    def count(self) -> int:
        """How many tokens the word becomes."""
        return count_vectors(next(iter(self.vectors.values())))


def count_vectors(tensor: StoredTensor) -> int:
    """How many vectors a tensor of [vectors, width] or [width] holds."""
    return tensor.shape[0] if len(tensor.shape) == 2 else 1
