"""The labelled prompts most like a given one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from costroute_rt.routing.prompt_encoder import Float32Array

_CHUNK_VALUES = 1 << 24
"""Similarities held at a time, 64 MiB."""


class Neighbours:
    """Prompts by their features, searched by cosine similarity; exact, and quick up to some 100,000. Safe to use from several threads.

    A search for one prompt is remembered, so that whoever asks about the same features next need not repeat it.
    """

    def __init__(self, features: Float32Array) -> None:
        """features: float32[prompts, width], one prompt or more; kept, not copied."""
        lengths = np.linalg.norm(features, axis=1)
        self.features = features
        self._scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        self._last: tuple[Float32Array, npt.NDArray[np.int64], Float32Array] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def search(self, features: Float32Array, k: int) -> tuple[npt.NDArray[np.int64], Float32Array]:
        """Positions and similarities of the k nearest (all, where there are fewer), the nearest first.

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

    def _search(self, features: Float32Array, k: int) -> tuple[npt.NDArray[np.int64], Float32Array]:
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        unit = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
        similarities = unit @ self.features.T
        similarities *= self._scale
        if k < len(self):
            places = np.argpartition(similarities, len(self) - k, axis=1)[:, len(self) - k :]
            similarities = np.take_along_axis(similarities, places, axis=1)
        else:
            places = np.broadcast_to(np.arange(len(self)), similarities.shape)
        order = np.argsort(-similarities, axis=1, kind="stable")
        return np.take_along_axis(places, order, axis=1), np.clip(np.take_along_axis(similarities, order, axis=1), -1, 1)
