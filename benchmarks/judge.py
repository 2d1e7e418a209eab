"""How much of what a prompt states is in a picture, by the bundle's scorer; and the autoencoder there and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.build import build_engines, open_engine
from costroute_rt.engines.bundle import Bundle
from costroute_rt.engines.engine import Engine
from costroute_rt.engines.error import BundleError
from costroute_rt.engines.store import Store
from costroute_rt.export.postcard.scene import ATTRIBUTES, Value

Pixels = npt.NDArray[np.uint8]


class Judge:
    """The scorer and the autoencoder of one bundle; made by `Judge.open`, closed by `with`."""

    def __init__(self, bundle: Bundle, store: Store, scorer: Engine) -> None:
        self._bundle, self._store, self._scorer = bundle, store, scorer
        self._opened = [scorer]

    @classmethod
    def open(cls, bundle: Bundle, home: Path | None) -> Judge:
        """Builds the scorer's engine where it is missing. Raises BundleError for a bundle without the postcard family's scorer."""
        store = Store.open(home)
        build_engines(bundle, store, graphs=["scorer/score"], measure=False)
        scorer = open_engine(bundle, store, "scorer", "score")
        found = {name: spec.shape[-1] for name, spec in scorer.outputs.items()}
        wanted = {name: len(values) for name, values in ATTRIBUTES.items()}
        if found != wanted:
            scorer.close()
            raise BundleError(bundle.root, f"its scorer tells {sorted(found)}", "this benchmark needs the postcard family's attributes")
        return cls(bundle, store, scorer)

    def probabilities(self, pixels: Pixels, stated: Mapping[str, Value]) -> dict[str, float]:
        """The scorer's probability of each stated value; pixels: uint8[height, width, 3]."""
        feeds = {"pixels": self._scorer.to_device(self.fit(pixels)[None])}
        heads = self._scorer.run(feeds)
        return {name: float(self._scorer.to_host(heads[name])[0, ATTRIBUTES[name].index(value)]) for name, value in stated.items()}

    def fit(self, pixels: Pixels) -> Pixels:
        """The picture at the bundle's own size."""
        from PIL import Image

        size = self._bundle.image.width, self._bundle.image.height
        if pixels.shape[1::-1] == size:
            return np.ascontiguousarray(pixels)
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX))

    def open_autoencoder(self) -> Autoencoder:
        """The bundle's decoder component `vae`, both ways; raises BundleError where it cannot encode."""
        bundle = self._bundle
        encode, decode = self._open("encode"), self._open("decode")
        return Autoencoder(encode, decode, bundle.image.latent_channels, *_scaling(bundle))

    def _open(self, graph: str) -> Engine:
        build_engines(self._bundle, self._store, graphs=[f"vae/{graph}"], measure=False)
        engine = open_engine(self._bundle, self._store, "vae", graph)
        self._opened.append(engine)
        return engine

    def close(self) -> None:
        """Closes the scorer and whatever else was opened through it."""
        for engine in self._opened:
            engine.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Autoencoder:
    """An encoder as optimum exports it (or one from pixels), and the family's decoder."""

    def __init__(self, encode: Engine, decode: Engine, channels: int, scale: float, shift: float) -> None:
        self._encode, self._decode, self._channels, self._scale, self._shift = encode, decode, channels, scale, shift

    def __call__(self, pixels: Pixels) -> Pixels:
        """There and back, by the mean of the latent; pixels: uint8[height, width, 3]."""
        (name, spec), *_ = self._encode.inputs.items()
        image = pixels[None]
        sample = image if spec.dtype == "uint8" else (image.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        (found,) = self._encode.run({name: self._encode.to_device(sample)}).values()
        mean = self._encode.to_host(found)[:, : self._channels]  # an encoder may give mean and log variance
        latent = np.asarray((mean - self._shift) * self._scale, dtype=np.float32)
        decoded = self._decode.run({"latent": self._decode.to_device(latent)})["pixels"]
        return np.asarray(self._decode.to_host(decoded)[0], dtype=np.uint8)


def _scaling(bundle: Bundle) -> tuple[float, float]:
    """Factor and shift of latents, as diffusers' configuration of the autoencoder has them."""
    if "vae/config.json" not in bundle.files:
        return 1.0, 0.0
    config = json.loads(bundle.path("vae/config.json").read_text(encoding="utf-8"))
    return float(config.get("scaling_factor") or 1.0), float(config.get("shift_factor") or 0.0)
