"""Prompts of the benchmarks: captions of scenes that no training run has seen, and free-form prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from costroute_rt.export.postcard.captions import band_of, banded
from costroute_rt.export.postcard.scene import Scene, Value

PROMPTS = Path(__file__).parent / "prompts"
FREE_FORM, OTHER_HANDS = PROMPTS / "free_form.json", PROMPTS / "other_hands.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text, and what its image must show."""

    text: str
    stated: Mapping[str, Value]
    """Attributes and values, as in `scene.ATTRIBUTES`."""
    scene: Scene = field(default_factory=dict)
    """The scene that a caption describes; empty for a free-form prompt."""
    name: str = ""
    """Name of the scene, which seeds its drawing; empty for a free-form prompt."""

    def excludes(self, attribute: str) -> bool:
        """True if the text says that this thing must not be there."""
        return self.stated.get(attribute) in ("none", 0)

    @property
    def band(self) -> str:
        """Its band of the number of stated attributes, one of BANDS."""
        return band_of(len(self.stated))


def held_out_captions(dataset: str, per_band: int) -> list[Prompt]:
    """`per_band` different captions for each of BANDS, in that order; they depend only on the name of the dataset.

    dataset: a name that no training data has used.
    """
    bands = banded(dataset, per_band)
    return [Prompt(text=each.text, stated=each.stated, scene=each.scene, name=each.name) for band in bands.values() for each in band]


def free_form_prompts(count: int | None = None, path: Path = FREE_FORM) -> list[Prompt]:
    """Prompts as people type them; `count` takes evenly spaced ones.

    No training uses any of them, and the grammar emits none that has more than two words. The author of the first forty of FREE_FORM had
    not read the caption grammar, which was widened later, after looking at kinds of prompts among all two hundred that were misread. Those
    of OTHER_HANDS were written after that, by somebody who had seen neither the grammar nor other prompts; it was widened once more since.
    """
    prompts = [Prompt(text=row["prompt"], stated=row["stated"]) for row in json.loads(path.read_text(encoding="utf-8"))]
    return prompts if count is None else prompts[:: max(1, len(prompts) // count)][:count]
