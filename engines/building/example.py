"""Fixed inputs for any graph of a bundle, to check and to time engines with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import IMAGE_SIZE, TensorSpec
from costroute_rt.error import BundleError

_ROW = (1.0, 500.0, 3.0, 1.0, -0.5, 0.7, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
"""A plausible row of a step table: timestep 500, guidance 3, every term of the linear rule in use."""
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
    return {"batch": batch, "batch_size": batch, **latent, **pixels, **token_axes(bundle)}


def token_axes(bundle: Bundle) -> dict[str, int]:
    """Lengths of the axes of tokens, by the names they have in the text encoders and in the graphs that take their outputs.

    `tokens` is the first encoder's, for a router that reads its states. Raises BundleError where one name stands for two lengths.
    """
    found: dict[str, int] = {}

    def note(axis: int | str, length: int) -> None:
        if isinstance(axis, str) and found.setdefault(axis, length) != length:
            problem = f"the axis {axis} of its graphs stands for {found[axis]} and for {length} tokens"
            raise BundleError(bundle.root, problem, "export it again with a name for each length")

    encoders = [each for each in bundle.components.values() if each.role == "text_encoder"]
    kept: dict[str, int] = {}
    for encoder in encoders:
        tokenizer = bundle.tokenizers[str(encoder.tokenizer)]
        graph = bundle.graphs[encoder.graphs["encode"]]
        note(graph.inputs["input_ids"].shape[1], tokenizer.max_length)
        left = tokenizer.max_length - tokenizer.drop
        kept |= {f"{encoder.name}.{name}": left for name, spec in graph.outputs.items() if len(spec.shape) > 2}
        kept[f"{encoder.tokenizer}.attention_mask"] = left
    for component in bundle.components.values():
        for path in component.graphs.values() if component.role == "denoiser" else ():
            for name, spec in bundle.graphs[path].inputs.items():
                if name in kept:
                    note(spec.shape[1], kept[name])
    found.setdefault("tokens", bundle.tokenizers[str(encoders[0].tokenizer)].max_length)
    return found


PROMPT_TOKENS = 16
"""A usual length of `prompt_tokens`, an axis that is never fixed: the tokens of a router's own tokenizer."""


def _example(name: str, spec: TensorSpec, lengths: dict[str, int], rng: np.random.Generator) -> npt.NDArray[Any]:
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
