"""Fixed inputs for any graph of a bundle, to check and to time engines with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import TensorSpec

_ROW = (1.0, 500.0, 1.0, -0.5, 0.7, 0.3, 0.1, 0.1)
"""A plausible row of a step table: timestep 500, every term of the linear rule in use."""
_TOKENS = 16
"""Token numbers below this exist in every vocabulary."""


def example_feeds(bundle: Bundle, graph_path: str, batch: int = 1, sizes: dict[str, int] | None = None) -> dict[str, npt.NDArray[Any]]:
    """One array per input of the graph, the same on every machine.

    sizes: lengths of free axes by name, where the default for the family's usual image is not wanted.
    """
    rng = np.random.Generator(np.random.Philox(0))
    lengths = {**axis_lengths(bundle, batch), "prompt_tokens": PROMPT_TOKENS, **(sizes or {})}
    return {name: _example(name, spec, lengths, rng) for name, spec in bundle.graphs[graph_path].inputs.items()}


def axis_lengths(bundle: Bundle, batch: int = 1, size: tuple[int, int] | None = None) -> dict[str, int]:
    """Lengths of the free axes, by the names that exporters give them.

    size: height and width of the images in pixels; the bundle's usual ones where None.
    """
    image = bundle.image
    height, width = size or (image.height, image.width)
    sides = {"height": height, "width": width}
    pixels = {f"{prefix}_{side}": length for prefix in ("image", "sample") for side, length in sides.items()}
    latent = {f"{prefix}{side}": length // image.vae_scale_factor for prefix in ("", "latent_") for side, length in sides.items()}
    return {"batch": batch, "batch_size": batch, **latent, **pixels, **dict.fromkeys(_SEQUENCES, bundle.tokenizer.max_length)}


_SEQUENCES = ("sequence", "sequence_length", "tokens")
PROMPT_TOKENS = 16
"""A usual length of `prompt_tokens`, an axis that is never fixed: the tokens of a router's own tokenizer."""


def _example(name: str, spec: TensorSpec, lengths: dict[str, int], rng: np.random.Generator) -> npt.NDArray[Any]:
    shape = tuple(axis if isinstance(axis, int) else lengths.get(axis, 1) for axis in spec.shape)
    if name == "row":
        return np.array(_ROW, dtype=spec.dtype)
    if name in ("guidance", "timestep"):
        return np.full(shape, 3 if name == "guidance" else 500, dtype=spec.dtype)
    if name in ("attention_mask", "lengths"):
        return np.full(shape, 1 if name == "attention_mask" else lengths["tokens"], dtype=spec.dtype)
    if spec.dtype in ("float32", "float16"):
        return np.asarray(rng.standard_normal(shape)).astype(spec.dtype)
    if spec.dtype == "bool":
        return np.ones(shape, dtype=np.bool_)
    return np.asarray(rng.integers(0, 256 if spec.dtype == "uint8" else _TOKENS, shape)).astype(spec.dtype)
