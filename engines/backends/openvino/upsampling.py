"""Doubling an image and a convolution of 3x3 behind it, as one transposed convolution.

Of the nine pixels that such a convolution reads, most are copies of each other: four sums of its weights per output pixel do the same with
less than half of the products, and without the doubled image.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Kernel = npt.NDArray[np.float32]

_CONVOLUTION = {"strides": [1, 1], "dilations": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], "auto_pad": "explicit"}
_DOUBLING = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_SUMS = ((2,), (1, 2), (0, 1), (0,))
"""Which rows of a kernel a row of the transposed one adds up, so that each row reaches the two pixels that are copies of one."""


def join_upsampling(ov: ModuleType, model: Any) -> int:
    """Change the pairs of doubling and convolution in `model`, whose shapes are known; returns how many."""
    return sum(_replace(ov.opset13, each) for each in model.get_ordered_ops() if each.get_type_name() == "Convolution")


def _replace(ops: Any, convolution: Any) -> bool:
    """Whether this convolution follows a doubling, and was replaced."""
    doubling, kernel = convolution.input_value(0).get_node(), _constant(convolution.input_value(1))
    attributes, kind = convolution.get_attributes(), convolution.get_output_element_type(0).get_type_name()
    if not _doubles(doubling) or kernel is None or kernel.shape[2:] != (3, 3):
        return False
    if kind != "f32" or any(attributes[name] != value for name, value in _CONVOLUTION.items()):
        return False
    turned = ops.constant(transposed_kernel(kernel))
    joined = ops.convolution_backprop_data(doubling.input_value(0), turned, [2, 2], pads_begin=[1, 1], pads_end=[1, 1])
    convolution.output(0).replace(joined.output(0))
    return True


def transposed_kernel(kernel: Kernel) -> Kernel:
    """float32[inputs, outputs, 4, 4] of the transposed convolution, with a stride of 2 and a padding of 1.

    kernel: float32[outputs, inputs, 3, 3] of the convolution behind the doubling.
    """
    rows = np.stack([kernel[:, :, list(each)].sum(2) for each in _SUMS], 2)
    both = np.stack([rows[:, :, :, list(each)].sum(3) for each in _SUMS], 3)
    return np.ascontiguousarray(both.swapaxes(0, 1))


def _doubles(node: Any) -> bool:
    """Whether it repeats each pixel of an image of known size, once to the right and once below, and one convolution alone reads it."""
    if node.get_type_name() != "Interpolate" or any(node.get_attributes()[name] != value for name, value in _DOUBLING.items()):
        return False
    given, made = node.input_value(0).get_partial_shape(), node.output(0).get_partial_shape()
    if given.is_dynamic or made.is_dynamic or given.rank != 4 or len(node.output(0).get_target_inputs()) != 1:
        return False
    return list(made.to_shape()) == [*list(given.to_shape())[:2], *(2 * length for length in list(given.to_shape())[2:])]


def _constant(value: Any) -> Kernel | None:
    """The numbers of a constant, perhaps stored in another type; None for what is none."""
    node = value.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.asarray(node.data, dtype=np.float32) if node.get_type_name() == "Constant" else None
