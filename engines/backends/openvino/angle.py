"""Sines and cosines of a model's inputs, computed in float32 beside a model that computes in fewer bits.

Timesteps and image sizes enter a denoiser as sines and cosines of angles of up to a thousand radians. With the eight bits of bfloat16,
such an angle is off by up to two radians. diffusers computes these angles in float32 in every precision; OpenVINO's plugin for the CPU does
not.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

_WAVES = frozenset({"Sin", "Cos"})
_HEAVY = frozenset({"Convolution", "GroupConvolution", "MatMul", "ScaledDotProductAttention"})
_NAME = "costroute-rt/wave {}"


def split_angles(ov: ModuleType, model: Any) -> tuple[Any, Any] | None:
    """The model of the sines and cosines that depend on nothing but inputs, and the model of the rest, with these as further inputs.

    None if there is no such sine. Both share nodes with `model`, which must not be used any more.
    """
    waves = [node for node in model.get_ordered_ops() if node.get_type_name() in _WAVES and _is_light(node)]
    if not waves:
        return None
    users = [list(node.output(0).get_target_inputs()) for node in waves]
    sources = _sources(*waves)
    for index, (wave, targets) in enumerate(zip(waves, users, strict=True)):
        value, name = wave.output(0), _NAME.format(index)
        given = ov.opset13.parameter(value.get_partial_shape(), value.get_element_type())
        for port in (value, given.output(0)):
            port.get_tensor().set_names({name})
        for target in targets:
            target.replace_source_output(given.output(0))
    rest = ov.Model(model.get_results(), _sources(*model.get_results()))
    return ov.Model([wave.output(0) for wave in waves], sources), rest


def _is_light(node: Any) -> bool:
    """Whether it is made of inputs by operations without weights worth the name, and not of constants alone."""
    found = _ancestors(node)
    return not any(each.get_type_name() in _HEAVY for each in found) and any(each.get_type_name() == "Parameter" for each in found)


def _sources(*nodes: Any) -> list[Any]:
    """The inputs of the model that these nodes depend on."""
    return [node for node in _ancestors(*nodes) if node.get_type_name() == "Parameter"]


def _ancestors(*nodes: Any) -> list[Any]:
    """These nodes and all that they depend on, each once."""
    found: dict[str, Any] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node.get_name() not in found:
            found[node.get_name()] = node
            waiting += [value.get_source_output().get_node() for value in node.inputs()]
    return list(found.values())
