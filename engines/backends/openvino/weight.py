"""Weights of 16 bits stay so in a compiled model."""

from __future__ import annotations

from typing import Any

_DECOMPRESSION = "decompression_0"
"""OpenVINO's mark of a conversion that only unpacks weights (`ov::Decompression`)."""
_TYPES = ("f16", "bf16")


def keep_weights_packed(model: Any) -> None:
    """Mark the conversions of stored weights as OpenVINO's own export does.

    Otherwise they are carried out when the model is compiled, and the result has weights in float32: twice the size on disk.
    """
    for node in model.get_ops():
        if node.get_type_name() == "Convert" and _is_weight(node.input_value(0)):
            node.get_rt_info()[_DECOMPRESSION] = True


def _is_weight(output: Any) -> bool:
    return bool(output.get_node().get_type_name() == "Constant" and output.get_element_type().get_type_name() in _TYPES)
