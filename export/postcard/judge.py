"""Recall of stated things: how much of what a prompt states the bundle's scorer finds in an image."""

from __future__ import annotations

from collections.abc import Mapping
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

Pixels = npt.NDArray[np.uint8]
AnyJudge = TypeVar("AnyJudge", bound="Judge")


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
        sizes = {name: spec.shape[-1] for name, spec in scorer.outputs.items()}
        expected = {name: len(values) for name, values in ATTRIBUTES.items()}
        if sizes != expected:
            scorer.close()
            raise BundleError(bundle.root, f"its scorer has the attributes {sorted(sizes)}", "use a bundle of the postcard family")
        return cls(bundle, store, scorer)

    def probabilities(self, pixels: Pixels, stated: Mapping[str, Value]) -> dict[str, float]:
        """The scorer's probability of each stated value; pixels: uint8[height, width, 3]."""
        feeds = {"pixels": self._scorer.to_device(self.fit(pixels)[None])}
        heads = self._scorer.run(feeds)
        return {name: float(self._scorer.to_host(heads[name])[0, ATTRIBUTES[name].index(value)]) for name, value in stated.items()}

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
