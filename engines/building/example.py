"""Fixed inputs for any graph of a bundle, to check and to time engines with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import IMAGE_SIZE, MOST_ELEMENTS, TensorSpec
from costroute_rt.engines.bundle.size import PROMPT_TOKENS, axis_lengths
from costroute_rt.error import BundleError

_ROW = (1.0, 500.0, 3.0, 1.0, -0.5, 0.7, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
"""A plausible row of a step table: timestep 500, guidance 3, every term of the linear rule in use."""
_TOKENS = 16
"""Token numbers below this exist in every vocabulary."""


def example_feeds(bundle: Bundle, graph_path: str, lengths: Mapping[str, int] | None = None) -> dict[str, npt.NDArray[Any]]:
    """One array per input of the graph, the same on every machine.

    lengths: of free axes by name, instead of those of the family's usual image. Raises BundleError for an axis of unknown length.
    """
    rng = np.random.Generator(np.random.Philox(0))
    own = {f"{name}.length": tokenizer.max_length - tokenizer.drop for name, tokenizer in bundle.tokenizers.items()}
    lengths = {**axis_lengths(bundle), **own, "rows": 1, "prompt_tokens": PROMPT_TOKENS, **(lengths or {})}
    inputs = bundle.graphs[graph_path].inputs
    for name, spec in inputs.items():
        unknown = next((axis for axis in spec.shape if isinstance(axis, str) and axis not in lengths), None)
        if unknown is not None:
            problem = f"the input {name} has the axis {unknown}, whose length is not known"
            remedy = f"export it again with a number there, or with one of the names {', '.join(sorted(lengths.keys() - own.keys()))}"
            raise BundleError(bundle.root / graph_path, problem, remedy)
        if math.prod(axis if isinstance(axis, int) else lengths[axis] for axis in spec.shape) > MOST_ELEMENTS:
            problem = f"the input {name} has more than {MOST_ELEMENTS} numbers for an image of the usual size"
            raise BundleError(bundle.root / graph_path, problem, "use another bundle")
    return {name: _example(name, spec, lengths, rng) for name, spec in inputs.items()}


def _example(name: str, spec: TensorSpec, lengths: Mapping[str, int], rng: np.random.Generator) -> npt.NDArray[Any]:
    shape = tuple(axis if isinstance(axis, int) else lengths[axis] for axis in spec.shape)
    if name == "row":
        return np.array(_ROW[: shape[0]], dtype=spec.dtype)
    if name == IMAGE_SIZE:
        return np.array((lengths["image_height"], lengths["image_width"]), dtype=spec.dtype)
    if name.endswith("attention_mask"):
        return np.ones(shape, dtype=spec.dtype)
    if name == "lengths" or name.endswith(".length"):
        return np.full(shape, lengths.get(name, lengths["tokens"]), dtype=spec.dtype)
    if spec.dtype in ("float32", "float16"):
        return np.asarray(rng.standard_normal(shape)).astype(spec.dtype)
    if spec.dtype == "bool":
        return np.ones(shape, dtype=np.bool_)
    return np.asarray(rng.integers(0, 256 if spec.dtype == "uint8" else _TOKENS, shape)).astype(spec.dtype)
