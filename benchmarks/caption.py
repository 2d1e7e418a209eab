"""The prompts benchmarks use: captions of scenes no training run has seen, and what people typed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from costroute_rt.export.postcard.captions import BANDS, band_of, banded
from costroute_rt.export.postcard.scene import Scene, Value

BUCKETS = BANDS
"""Least and greatest number of stated attributes."""
HUMAN = Path(__file__).parent / "prompts" / "human.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text, and what a picture of it must show."""

    text: str
    stated: Mapping[str, Value]
    """Attributes and values, as in `scene.ATTRIBUTES`."""
    scene: Scene = field(default_factory=dict)
    """The scene a caption describes; empty for what a person typed."""
    name: str = ""
    """Of the scene: what its drawing is seeded with."""

    @property
    def bucket(self) -> str:
        """Which of BUCKETS it belongs to."""
        return band_of(len(self.stated))


def held_out(dataset: str, per_bucket: int) -> list[Prompt]:
    """`per_bucket` different captions for each of BUCKETS, in that order; they depend on the name of the dataset alone.

    dataset: a name that no training data was ever drawn under.
    """
    found = banded(dataset, per_bucket)
    return [Prompt(text=each.text, stated=each.stated, scene=each.scene, name=each.name) for band in found.values() for each in band]


def human(count: int | None = None) -> list[Prompt]:
    """What people would type, written before its author had read the grammar; spread over the list where not all are wanted."""
    prompts = [Prompt(text=row["prompt"], stated=row["stated"]) for row in json.loads(HUMAN.read_text(encoding="utf-8"))]
    return prompts if count is None else prompts[:: max(1, len(prompts) // count)][:count]
