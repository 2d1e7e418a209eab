"""Evidence that routing by the prompt gains, at one trade-off: the strict option of a router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, check_finite

_STEPS = 500
"""Penalties are rounded to this part of the labels' spread, so that nearly equal costs are measured once."""
_KEPT = 256


class Evidence:
    """Honest estimates of the labelled prompts beside their labels, from which the gain at any trade-off is measured.

    The effect of a prompt counts by max(0, 1 - se^2 / g^2), the positive-part James-Stein factor of the mean gain g over the best choice
    that ignores the prompt, in addition to the shrinkage. Safe to use from several threads.
    """

    def __init__(self, estimate: Float32Array, labels: Float32Array) -> None:
        """estimate: float32[prompts, candidates], shrunk, made without the prompts. labels: of the same shape, complete."""
        check_finite({"estimate": estimate, "labels": labels}, estimate=2, labels=2)
        if estimate.shape != labels.shape or not labels.size:
            raise ValueError(f"estimates {estimate.shape} and labels {labels.shape} do not fit")
        self._estimate, self._labels = estimate, labels
        self._unit = max(float(labels.std()), 1e-30) / _STEPS
        self._known: dict[bytes, float] = {}

    @property
    def candidates(self) -> int:
        return int(self._labels.shape[1])

    def share(self, penalty: FloatArray) -> float:
        """How much the effect of a prompt counts, 0..1.

        penalty: float64[candidates], lambda * cost; infinite for candidates that cannot be chosen. At least one is finite.
        """
        rounded = np.round((penalty - penalty.min()) / self._unit)
        key = rounded.tobytes()
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[key] = self._measure(rounded * self._unit)
        return found

    def _measure(self, penalty: FloatArray) -> float:
        rows = np.arange(len(self._labels))
        choice = (self._estimate - penalty).argmax(1)
        constant = int((self._labels.mean(0, dtype=np.float64) - penalty).argmax())
        differs = choice != constant
        gain = np.zeros(len(rows))
        gain[differs] = (self._labels[rows, choice] - self._labels[:, constant])[differs] - (penalty[choice] - penalty[constant])[differs]
        mean = float(gain.mean())
        if not mean > 0 or len(gain) < 2:
            return 0.0
        return max(0.0, 1 - float(gain.var(ddof=1)) / len(gain) / mean**2)

    def select(self, columns: Sequence[int]) -> Evidence:
        """The evidence about these candidates, by position."""
        return Evidence(self._estimate[:, list(columns)], self._labels[:, list(columns)])

    def arrays(self) -> dict[str, AnyArray]:
        return {"estimate": self._estimate, "labels": self._labels}

    @classmethod
    def from_saved(cls, arrays: Mapping[str, AnyArray]) -> Evidence:
        """The evidence whose `arrays` these are; raises KeyError or ValueError."""
        return cls(*(np.asarray(arrays[name], dtype=np.float32) for name in ("estimate", "labels")))
