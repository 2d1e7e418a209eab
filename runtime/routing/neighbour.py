"""Search for the labelled prompts most similar to a given one."""

from __future__ import annotations

import numpy as np

from costroute_rt.routing.array import Float32Array, IntArray, row_lengths
from costroute_rt.routing.largest import find_largest

_CHUNK_VALUES = 1 << 24
"""Similarities held at a time, 64 MiB."""


class Neighbours:
    """Exact search by cosine similarity, fast for up to about 100,000 prompts. Safe to use from several threads.

    The last search for a single prompt is cached: a router needs it twice, for its estimator and for its trust.
    """

    def __init__(self, features: Float32Array) -> None:
        """features: float32[prompts, width], one prompt or more; kept without a copy."""
        lengths = row_lengths(features)
        self.features = features
        self._scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        self._last: tuple[Float32Array, IntArray, Float32Array] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def search(self, features: Float32Array, k: int) -> tuple[IntArray, Float32Array]:
        """Positions and similarities of the k nearest (all if there are fewer), nearest first.

        features: float32[queries, width]. Returns int64[queries, k], float32[queries, k] in -1..1, 0 for features that are all 0.
        """
        k, last = min(k, len(self)), self._last
        if last is not None and last[0] is features and last[1].shape[1] >= k:
            return last[1][:, :k], last[2][:, :k]
        step = max(1, _CHUNK_VALUES // len(self))
        parts = [self._search(features[start : start + step], k) for start in range(0, len(features), step)]
        if len(parts) == 1:
            places, similarities = parts[0]
        else:
            places = np.concatenate([part[0] for part in parts]) if parts else np.empty((0, k), dtype=np.int64)
            similarities = np.concatenate([part[1] for part in parts]) if parts else np.empty((0, k), dtype=np.float32)
        if len(features) == 1:
            self._last = features, places, similarities
        return places, similarities

    def _search(self, features: Float32Array, k: int) -> tuple[IntArray, Float32Array]:
        lengths = row_lengths(features)[:, None]
        unit = np.divide(features, lengths, out=np.zeros(features.shape, dtype=np.float32), where=lengths > 0)
        similarities = unit @ self.features.T
        similarities *= self._scale
        places, found = np.empty((len(features), k), dtype=np.int64), np.empty((len(features), k), dtype=np.float32)
        for number, row in enumerate(similarities):
            places[number] = chosen = find_largest(row, k)
            found[number] = row[chosen]
        return places, np.minimum(np.maximum(found, -1), 1)
