"""Engine runs as values, from which costs, loads and warm-up runs are derived."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Stage(str, Enum):
    """The stage that a call belongs to; its value is the name in timings and costs."""

    ROUTE = "route"
    TEXT = "text"
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Call:
    """One engine, run a number of times."""

    engine: str
    """`family/component/graph`, or `family/component/graph@HEIGHTxWIDTH`."""
    stage: Stage
    times: int = 1
    rows: int = 1
    """Texts in each run: 2 with a negative prompt, else 1."""
    area: float = 1.0
    """Pixels of the image, divided by the pixels of the size at which the engine was measured; of a tile, if the image has several."""
    tiles: int = 1
    """Tiles of each image; each takes a run, which `times` counts."""
