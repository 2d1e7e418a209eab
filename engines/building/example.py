"""Fixed inputs for any graph of a bundle, to check and to time engines with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import IMAGE_SIZE, TensorSpec
from costroute_rt.engines.bundle.size import PROMPT_TOKENS, axis_lengths

_ROW = (1.0, 500.0, 3.0, 1.0, -0.5, 0.7, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
"""A plausible row of a step table: timestep 500, guidance 3, every term of the linear rule in use."""
_TOKENS = 16
"""Token numbers below this exist in every vocabulary."""


def example_feeds(bundle: Bundle, graph_path: str, lengths: Mapping[str, int] | None = None) -> dict[str, npt.NDArray[Any]]:
    """One array per input of the graph, the same on every machine.

    lengths: of free axes by name, instead of those of the family's usual image.
    """
    rng = np.random.Generator(np.random.Philox(0))
    lengths = {**axis_lengths(bundle), "prompt_tokens": PROMPT_TOKENS, **(lengths or {})}
    return {name: _example(name, spec, lengths, rng) for name, spec in bundle.graphs[graph_path].inputs.items()}


def _example(name: str, spec: TensorSpec, lengths: Mapping[str, int], rng: np.random.Generator) -> npt.NDArray[Any]:
    shape = tuple(axis if isinstance(axis, int) else lengths.get(axis, 1) for axis in spec.shape)
    if name == "row":
        return np.array(_ROW[: shape[0]], dtype=spec.dtype)
    if name == IMAGE_SIZE:
        return np.array((lengths["image_height"], lengths["image_width"]), dtype=spec.dtype)
    if name.endswith("attention_mask"):
        return np.ones(shape, dtype=spec.dtype)
    if name == "lengths" or name.endswith(".length"):
        return np.full(shape, lengths["tokens"], dtype=spec.dtype)
    if spec.dtype in ("float32", "float16"):
        return np.asarray(rng.standard_normal(shape)).astype(spec.dtype)
    if spec.dtype == "bool":
        return np.ones(shape, dtype=np.bool_)
    return np.asarray(rng.integers(0, 256 if spec.dtype == "uint8" else _TOKENS, shape)).astype(spec.dtype)
