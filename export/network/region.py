"""Points the initialisers of a graph without data at the regions of the user's own weight files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costroute_rt.engines.bundle.safetensors_file import ITEM_BYTES
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Network, Region

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_PREFIX = "weights/"
_OTHER_MODEL = "use the weights of this network, not those of another one or of a part"


def point_weights(model: ModelProto, network: Network, locations: Mapping[Path, str]) -> None:
    """Makes every initialiser without data refer to the region of the parameter of its name; changes `model`.

    The graph casts float16 and bfloat16 to float32, and transposes matrices that are stored transposed.
    locations: for each weight file of the network, its name in the folder in which the graph is saved.
    Raises BundleError for a parameter without a region, or with a region of another shape.
    """
    from onnx import TensorProto
    from onnx.helper import make_node

    stored: list[TensorProto] = []
    reading: dict[str, list[NodeProto]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            stored.append(tensor)
            continue
        name, region = str(tensor.name), network.weights.get(tensor.name)
        if region is None:
            raise BundleError(next(iter(network.files()), None), f"it has no weights for {network.name}.{name}", _OTHER_MODEL)
        steps: list[tuple[str, dict[str, Any]]] = [] if region.dtype == "F32" else [("Cast", {"to": TensorProto.FLOAT})]
        steps += [("Transpose", {"perm": [1, 0]})] if region.is_transposed else []
        source = _PREFIX + name if steps else name
        stored.append(_refer(source, region, _stored_shape(f"{network.name}.{name}", region, tuple(tensor.dims)), locations[region.file]))
        for index, (kind, settings) in enumerate(steps):
            result = name if index == len(steps) - 1 else f"{source}/{kind}"
            reading.setdefault(name, []).append(make_node(kind, [source], [result], **settings))
            source = result
    # Each is read just before it is used first: in an engine that folds nothing, only a few weights are then in memory as float32.
    nodes = [each for node in model.graph.node for each in (*(step for name in node.input for step in reading.pop(name, ())), node)]
    for field, values in ((model.graph.initializer, stored), (model.graph.node, nodes)):
        del field[:]
        field.extend(values)


def _stored_shape(name: str, region: Region, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which the graph reads a parameter of `shape`; raises BundleError for a region that does not hold it."""
    wanted = shape[::-1] if region.is_transposed else shape
    is_known = region.dtype in ITEM_BYTES and region.length == math.prod(wanted) * ITEM_BYTES[region.dtype]
    if not is_known or _without_ones(region.shape) != _without_ones(wanted) or (region.is_transposed and len(shape) != 2):
        found = f"{region.dtype}{list(region.shape)}{', transposed' if region.is_transposed else ''}"
        raise BundleError(region.file, f"its weights for {name} are {found}: expected {list(shape)}", _OTHER_MODEL)
    return wanted


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def _refer(name: str, region: Region, shape: tuple[int, ...], location: str) -> TensorProto:
    from onnx import TensorProto

    kind = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16}[region.dtype]
    tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", region.offset), ("length", region.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
