"""The score of an image: how much of what its prompt states the bundle's scorer finds in it, and how clean it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError
from costroute_rt.export.postcard.scene import ATTRIBUTES, Value
from costroute_rt.export.scorer import CLEANNESS

Pixels = npt.NDArray[np.uint8]
AnyJudge = TypeVar("AnyJudge", bound="Judge")
CLEANNESS_WEIGHT = 0.25
"""Share of cleanness in the score, chosen by pairs of images that were judged by eye (`python -m benchmarks.judged_pairs`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the scorer finds in one image."""

    probabilities: Mapping[str, float]
    """Of each stated value, 0..1."""
    cleanness: float | None = None
    """0..1; about 1 for a drawing, lower with ghosts, blur, doubles and half-drawn things. None if the scorer does not judge it."""

    @property
    def recall(self) -> float:
        """Recall of stated things: the mean probability of the stated values, 0..1."""
        return float(np.mean(list(self.probabilities.values())))

    @property
    def score(self) -> float:
        """The mean of recall and cleanness, weighted by CLEANNESS_WEIGHT, 0..1; recall alone if cleanness is not known."""
        if self.cleanness is None:
            return self.recall
        return (1 - CLEANNESS_WEIGHT) * self.recall + CLEANNESS_WEIGHT * self.cleanness


class Judge:
    """The scorer of one bundle; opened by `Judge.open`, closed by `with`."""

    def __init__(self, bundle: Bundle, store: Store, scorer: Engine) -> None:
        self._bundle, self._store, self._scorer = bundle, store, scorer
        self._opened = [scorer]

    @classmethod
    def open(cls: type[AnyJudge], bundle: Bundle, home: Path | None) -> AnyJudge:
        """Builds the scorer's engine if it is missing; raises BundleError for a bundle without the postcard family's scorer."""
        store = Store.open(home)
        name = f"{bundle.name}/scorer/score"
        build_engines(bundle, store, [name], measure=False)
        scorer = open_engine(bundle, store, name)
        sizes = {name: spec.shape[-1] for name, spec in scorer.outputs.items() if name != CLEANNESS}
        expected = {name: len(values) for name, values in ATTRIBUTES.items()}
        if sizes != expected:
            scorer.close()
            raise BundleError(bundle.root, f"its scorer has the attributes {sorted(sizes)}", "use a bundle of the postcard family")
        return cls(bundle, store, scorer)

    @property
    def judges_cleanness(self) -> bool:
        """Whether its findings have a cleanness; the scorers of older bundles do not judge it."""
        return CLEANNESS in self._scorer.outputs

    def look(self, pixels: Pixels, stated: Mapping[str, Value]) -> Finding:
        """Judges one image; pixels: uint8[height, width, 3]."""
        found = self._scorer.run({"pixels": self._scorer.to_device(self.fit(pixels)[None])})
        heads = {name: self._scorer.to_host(found[name])[0] for name in (*stated, *([CLEANNESS] if self.judges_cleanness else []))}
        return Finding(
            probabilities={name: float(heads[name][ATTRIBUTES[name].index(value)]) for name, value in stated.items()},
            cleanness=float(heads[CLEANNESS][0]) if self.judges_cleanness else None,
        )

    def fit(self, pixels: Pixels) -> Pixels:
        """Resizes the image to the bundle's default size, if needed."""
        from PIL import Image

        size = self._bundle.image.width, self._bundle.image.height
        if pixels.shape[1::-1] == size:
            return np.ascontiguousarray(pixels)
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX))

    def close(self) -> None:
        """Closes the scorer and the other engines that were opened with it."""
        for engine in self._opened:
            engine.close()

    def __enter__(self: AnyJudge) -> AnyJudge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
