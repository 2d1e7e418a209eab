"""The bundle's scorer, and its autoencoder as a round trip."""

from __future__ import annotations

import numpy as np

from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.export.postcard.judge import Judge as ScorerJudge
from costroute_rt.export.postcard.judge import Pixels

__all__ = ["Autoencoder", "Judge", "Pixels"]


class Judge(ScorerJudge):
    """The scorer and the autoencoder of one bundle; made by `Judge.open`, closed by `with`."""

    def open_autoencoder(self) -> Autoencoder:
        """The bundle's component `vae`, encoder and decoder; raises BundleError where it has no encoder."""
        return Autoencoder(self._open("encode"), self._open("decode"))

    def _open(self, graph: str) -> Engine:
        name = f"{self._bundle.family}/vae/{graph}"
        build_engines(self._bundle, self._store, [name], measure=False)
        engine = open_engine(self._bundle, self._store, name)
        self._opened.append(engine)
        return engine


class Autoencoder:
    """The family's encoder of images and its decoder."""

    def __init__(self, encode: Engine, decode: Engine) -> None:
        self._encode, self._decode = encode, decode

    def __call__(self, pixels: Pixels) -> Pixels:
        """Encodes to the mean of the latent and decodes again; pixels: uint8[height, width, 3]."""
        encoded = self._encode.run({"pixels": self._encode.to_device(pixels[None])})["latent"]
        latent = np.asarray(self._encode.to_host(encoded))
        decoded = self._decode.run({"latent": self._decode.to_device(latent)})["pixels"]
        return np.asarray(self._decode.to_host(decoded)[0], dtype=np.uint8)
