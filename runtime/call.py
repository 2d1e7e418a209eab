"""Engine runs as values: what costs, loading and warming up are added up from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Stage(str, Enum):
    """What a call is for; its value is the name in timings and costs."""

    ROUTE = "route"
    TEXT = "text"
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
    """Texts in each run: 2 where a negative prompt stands beside the prompt."""
    area: float = 1.0
    """Pixels of the image over those of the size at which the engine was measured."""
