"""Group normalization by channel, which leaves tensors in the layout that convolutions use.

ONNX has it as an instance normalization of a tensor whose channels are joined in groups. OpenVINO's plugin for the CPU computes that on
channels that lie one after the other in memory, but convolutions on channels side by side, so that each normalization moves its tensor
twice, which took half the time of decoding. Mean and variance of a group are those of its channels, which need no move.
"""

from __future__ import annotations

from math import prod
from types import ModuleType
from typing import Any

import numpy as np

LARGE = 1 << 17
"""Numbers in a tensor. Smaller ones are moved in less time than the additional operators take to start."""


def normalize_by_channel(ov: ModuleType, model: Any) -> int:
    """Change the group normalizations of large images, and of images of unknown size, in `model`; returns how many."""
    found = [each for each in model.get_ordered_ops() if each.get_type_name() == "MVN"]
    return sum(_replace(ov.opset13, each) for each in found)


def _replace(ops: Any, norm: Any) -> bool:
    """Whether `norm` was the middle of a group normalization, and was replaced."""
    joined, last = norm.input_value(0).get_node(), _follow(norm)
    if joined.get_type_name() != "Reshape" or last is None or not _is_by_group(norm):
        return False
    given, groups = joined.input_value(0), joined.output(0).get_partial_shape()
    shape = given.get_partial_shape()
    if shape.rank != 4 or shape != last.output(0).get_partial_shape():
        return False
    if shape[1].is_dynamic or groups[1].is_dynamic or (shape.is_static and prod(shape.to_shape()) < LARGE):
        return False
    channels, count = shape[1].get_length(), groups[1].get_length()
    if channels % count or groups[0] != shape[0]:
        return False

    def group_mean(values: Any) -> Any:
        """[images, channels, 1, 1]: the mean over each channel's group."""
        of_channels = ops.reshape(ops.reduce_mean(values, [2, 3], True), [0, count, -1], True)
        of_group = ops.tile(ops.reduce_mean(of_channels, [2], True), [1, 1, channels // count])
        return ops.reshape(of_group, [0, channels, 1, 1], True)

    centered = ops.subtract(given, group_mean(given))
    deviation = ops.sqrt(ops.add(group_mean(ops.multiply(centered, centered)), np.float32(norm.get_attributes()["eps"])))
    last.output(0).replace(ops.multiply(centered, ops.divide(np.float32(1), deviation)).output(0))
    return True


def _is_by_group(norm: Any) -> bool:
    """Whether it has one mean and one variance for each group of each image, [images, groups, numbers], in float32."""
    attributes, axes = norm.get_attributes(), norm.input_value(1).get_node()
    if axes.get_type_name() != "Constant" or axes.data.tolist() not in ([2], [-1]) or norm.get_output_partial_shape(0).rank != 3:
        return False
    is_usual = attributes["normalize_variance"] and attributes["eps_mode"] == "INSIDE_SQRT"
    return bool(is_usual and norm.get_output_element_type(0).get_type_name() == "f32")


def _follow(norm: Any) -> Any | None:
    """The reshape back to channels, behind a scale of 1 and a shift of 0; None if something else follows, or more than one thing."""
    node = norm
    for kind, neutral in (("Multiply", 1.0), ("Add", 0.0)):
        node = _only_user(node)
        if node is None or node.get_type_name() != kind or not any(_is_all(value, neutral) for value in node.input_values()):
            return None
    last = _only_user(node)
    return last if last is not None and last.get_type_name() == "Reshape" else None


def _only_user(node: Any) -> Any | None:
    """What reads its values, if it is one node; others may read its shape."""
    users = [each.get_node() for each in node.output(0).get_target_inputs()]
    readers = [each for each in users if each.get_type_name() != "ShapeOf"]
    return readers[0] if len(readers) == 1 else None


def _is_all(value: Any, number: float) -> bool:
    """Whether it is a constant, perhaps reshaped or converted, of which each number is this one."""
    node = value.get_node()
    while node.get_type_name() in ("Reshape", "Unsqueeze", "Convert", "Broadcast"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and bool((node.data == number).all())
