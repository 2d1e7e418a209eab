"""The bundle's scorer, and its autoencoder as a round trip."""

from __future__ import annotations

import json

import numpy as np

from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.export.postcard.judge import Judge as ScorerJudge
from costroute_rt.export.postcard.judge import Pixels

__all__ = ["Autoencoder", "Judge", "Pixels"]


class Judge(ScorerJudge):
    """The scorer and the autoencoder of one bundle; made by `Judge.open`, closed by `with`."""

    def open_autoencoder(self) -> Autoencoder:
        """The bundle's component `vae`, encoder and decoder; raises BundleError where it has no encoder."""
        bundle = self._bundle
        encode, decode = self._open("encode"), self._open("decode")
        return Autoencoder(encode, decode, bundle.image.latent_channels, *_scaling(bundle))

    def _open(self, graph: str) -> Engine:
        name = f"{self._bundle.family}/vae/{graph}"
        build_engines(self._bundle, self._store, [name], measure=False)
        engine = open_engine(self._bundle, self._store, name)
        self._opened.append(engine)
        return engine


class Autoencoder:
    """An encoder, as optimum exports it or from pixels, and the family's decoder."""

    def __init__(self, encode: Engine, decode: Engine, channels: int, scale: float, shift: float) -> None:
        self._encode, self._decode, self._channels, self._scale, self._shift = encode, decode, channels, scale, shift

    def __call__(self, pixels: Pixels) -> Pixels:
        """Encodes to the mean of the latent and decodes again; pixels: uint8[height, width, 3]."""
        (name, spec), *_ = self._encode.inputs.items()
        image = pixels[None]
        sample = image if spec.dtype == "uint8" else (image.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        (moments,) = self._encode.run({name: self._encode.to_device(sample)}).values()
        mean = self._encode.to_host(moments)[:, : self._channels]  # the encoder may return mean and log variance
        latent = np.asarray((mean - self._shift) * self._scale, dtype=np.float32)
        decoded = self._decode.run({"latent": self._decode.to_device(latent)})["pixels"]
        return np.asarray(self._decode.to_host(decoded)[0], dtype=np.uint8)


def _scaling(bundle: Bundle) -> tuple[float, float]:
    """Scaling factor and shift of latents from diffusers' configuration of the autoencoder."""
    if "vae/config.json" not in bundle.files:
        return 1.0, 0.0
    config = json.loads(bundle.path("vae/config.json").read_text(encoding="utf-8"))
    return float(config.get("scaling_factor") or 1.0), float(config.get("shift_factor") or 0.0)
