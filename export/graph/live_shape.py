"""Reshapes and crops whose sizes are read while the graph runs, so that a network traced at one size gives a graph for every size.

torch's exporter writes the traced sizes into a graph, unless it traces with symbols for them, which takes minutes at full size. The few
places of a network that depend on the size use these functions instead: each is ONNX operators. They compute nothing outside an export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.onnx import ops


def tokens_of(image: Tensor) -> Tensor:
    """[batch, channels, height, width] -> [batch, height * width, channels]"""
    batch, channels, height, width = image.shape
    flat = _operator("Reshape", (image, _constant([0, 0, -1])), like=image, shape=(batch, channels, height * width))
    return flat.transpose(1, 2)


def image_of(tokens: Tensor, like: Tensor) -> Tensor:
    """[batch, height * width, channels] -> [batch, channels, height, width] with the sides of `like`, an image."""
    batch, _, channels = tokens.shape
    turned = tokens.transpose(1, 2)
    sizes = _join(_sizes(turned, 0, 2), _sizes(like, 2, 4))
    return _operator("Reshape", (turned, sizes), like=tokens, shape=(batch, channels, *like.shape[2:]))


def crop(image: Tensor, like: Tensor) -> Tensor:
    """The upper left part of an image, with the sides of `like`."""
    inputs = (image, _constant([0, 0]), _sizes(like, 2, 4), _constant([2, 3]))
    return _operator("Slice", inputs, like=image, shape=(*image.shape[:2], *like.shape[2:]))


def double(image: Tensor) -> Tensor:
    """Each pixel twice along both sides."""
    batch, channels, height, width = image.shape
    settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    inputs = (image, None, _constant([1.0, 1.0, 2.0, 2.0]))
    return _operator("Resize", inputs, settings, like=image, shape=(batch, channels, 2 * height, 2 * width))


def repeat_row(row: Tensor, like: Tensor) -> Tensor:
    """[1, width] -> [batch, width], with the batch of `like`."""
    sizes = _join(_sizes(like, 0, 1), _constant([1]))
    return _operator("Expand", (row, sizes), like=row, shape=(like.shape[0], row.shape[1]))


def _sizes(value: Tensor, start: int, end: int) -> Tensor:
    return _operator("Shape", (value,), {"start": start, "end": end}, like=_WHOLE, shape=(end - start,))


def _join(*sizes: Tensor) -> Tensor:
    return _operator("Concat", sizes, {"axis": 0}, like=_WHOLE, shape=(sum(each.shape[0] for each in sizes),))


def _constant(values: Sequence[float]) -> Tensor:
    """int64[n], or float32[n] if there are fractions."""
    is_whole = all(isinstance(value, int) for value in values)
    kind, like = ("value_ints", _WHOLE) if is_whole else ("value_floats", _FRACTION)
    return _operator("Constant", (), {kind: list(values)}, like=like, shape=(len(values),))


_WHOLE, _FRACTION = torch.int64, torch.float32


def _operator(
    kind: str, inputs: Sequence[Tensor | None], settings: dict[str, Any] | None = None, *, like: Tensor | torch.dtype, shape: Sequence[int]
) -> Tensor:
    """like: what has the dtype of the result. shape: of the result, at the traced size."""
    dtype = like if isinstance(like, torch.dtype) else like.dtype
    return ops.symbolic(kind, inputs, settings or {}, dtype=dtype, shape=shape)
