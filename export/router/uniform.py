"""Uniform reductions: what all prompts get alike instead of routing, read off a pool of candidates.

A uniform reduction spends less on every prompt by one means: fewer steps, guidance that stops early, another precision, a distilled
denoiser. On a plot it is a line of candidates that differ in that alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MEANS = {
    "num_inference_steps": "fewer steps",
    "guidance_end": "guidance stopped early",
    "precision": "lower precision",
    "decoder": "other decoders",
}
"""Fields of a candidate that a reduction changes, and what it is called."""
_NAMES = ("name", "description")
"""Fields that say nothing about the work."""


@dataclass(frozen=True, slots=True)
class UniformReduction:
    """Candidates that differ by one means."""

    label: str
    """Denoiser and means, such as `postcard-base: fewer steps`."""
    candidates: tuple[str, ...]
    """From the least to the most work, two or more."""


def find_reductions(pool: Sequence[Mapping[str, Any]], cost_ms: Mapping[str, float]) -> list[UniformReduction]:
    """The uniform reductions in a pool.

    pool: candidates as plain data, as a manifest has them. cost_ms: milliseconds of each candidate by name, which order a line.
    """
    found = []
    for field, means in MEANS.items():
        groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
        for row in pool:
            rest = tuple(sorted((key, repr(value)) for key, value in row.items() if key not in (*_NAMES, field)))
            groups.setdefault(rest, []).append(row)
        for rows in groups.values():
            if len({row.get(field) for row in rows}) > 1:
                names = sorted((str(row["name"]) for row in rows), key=lambda name: cost_ms[name])
                found.append(UniformReduction(f"{_denoiser(rows[0])}: {means}", tuple(names)))
    return found


def _denoiser(row: Mapping[str, Any]) -> str:
    """What candidates of one denoiser are called in common: the name up to @."""
    return str(row["name"]).partition("@")[0]
