"""The check of a network's graph against torch: the same finite outputs for inputs of two shapes.

A full-size SDXL denoiser takes 13 GB of memory in torch. Here each layer reads its weights from the file when it runs and drops them
after, and images are small, so that the largest layer is what counts.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto
from torch import Tensor, nn

from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.bundle.manifest import IMAGE_SIZE, GraphSpec
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Network, Region
from costroute_rt.regular_file import open_regular

Arrays = dict[str, npt.NDArray[Any]]
RunNetwork = Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Runs an unchanged network on the inputs of its graph; returns the outputs of the graph."""

SHAPES = (
    {"batch": 1, "tokens": 77, "height": 8, "width": 8, "image_height": 64, "image_width": 64},
    {"batch": 2, "tokens": 154, "height": 11, "width": 9, "image_height": 88, "image_width": 72},
)
"""Lengths of the free axes; none is that of the trace."""
_LARGEST_ERROR = 1e-3
"""Of the standard deviation of an output; float32 gives a hundredth of it."""
_EXAMPLE_SIZE = (512, 768)
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest difference between a graph and torch."""

    error: float
    """In standard deviations of the output."""
    output: str


def check_parity(model: ModelProto, spec: GraphSpec, network: Network, make: Callable[[], nn.Module], run: RunNetwork) -> Parity:
    """Compares a graph with the network it was made of; raises BundleError if they differ or an output is not finite.

    model: its weights are in the folder of the network's files. make: builds the network, whose parameters are then replaced.
    """
    gc.collect()  # what is left of the export
    inputs = [example(spec, network.config, lengths, np.random.default_rng(index)) for index, lengths in enumerate(SHAPES)]
    outputs = _run_torch(_streamed(make, network), run, inputs)
    worst, folder = Parity(0.0, ""), next(iter(network.files())).parent
    with _written(model, folder) as path, OnnxRuntimeBackend().open_reference(path, is_frugal=True) as engine:
        for feeds, wanted in zip(inputs, outputs, strict=True):
            found = engine.run(feeds)
            for name, value in wanted.items():
                error = _compare(f"{network.name}.{name}", engine.to_host(found[name]), value, folder)
                worst = max(worst, Parity(error, name), key=lambda each: each.error)
    return worst


@contextmanager
def _written(model: ModelProto, folder: Path) -> Iterator[Path]:
    """A file of the graph, as long as it is needed."""
    file, name = tempfile.mkstemp(dir=folder, prefix=".check-", suffix=".onnx")
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(model.SerializeToString())
        yield Path(name)
    finally:
        os.unlink(name)


def _run_torch(module: nn.Module, run: RunNetwork, inputs: Sequence[Arrays]) -> list[Arrays]:
    with torch.no_grad():
        results = [run(module, {name: torch.from_numpy(value) for name, value in feeds.items()}) for feeds in inputs]
    return [{name: value.numpy() for name, value in each.items()} for each in results]


def example(spec: GraphSpec, config: Mapping[str, Any], lengths: Mapping[str, int], rng: np.random.Generator) -> Arrays:
    """One array for each input of a network's graph, of ordinary values."""
    feeds: Arrays = {}
    for name, port in spec.inputs.items():
        shape = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in port.shape)
        if name == IMAGE_SIZE:
            feeds[name] = np.array(_EXAMPLE_SIZE)
        elif name == "input_ids":  # the highest number, which ends a text, is in the middle and at the end
            feeds[name] = rng.integers(0, config["vocab_size"], shape)
            feeds[name][:, [shape[1] // 2, -1]] = config["vocab_size"] - 1
        elif len(shape) == 1:  # a timestep or a guidance scale
            feeds[name] = rng.uniform(1, 9, shape).astype(np.float32) * np.float32(100 if name == "timestep" else 1)
        else:
            feeds[name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def _compare(name: str, found: npt.NDArray[Any], wanted: npt.NDArray[Any], folder: Path) -> float:
    if not np.isfinite(wanted).all():
        raise BundleError(folder, f"its weights give NaN or infinity in {name}", "download the checkpoint again")
    if found.shape != wanted.shape:
        problem = f"the graph gives {name} in the shape {list(found.shape)}, torch in {list(wanted.shape)}"
        raise BundleError(folder, problem, "report it; this model cannot be exported")
    error = float(np.abs(found - wanted).max() / max(float(wanted.std()), 1e-12))
    if not error <= _LARGEST_ERROR:
        problem = f"the graph's {name} is {error:.2g} standard deviations from torch's: expected {_LARGEST_ERROR} at most"
        raise BundleError(folder, problem, "report it; this model cannot be exported")
    return error


def _streamed(make: Callable[[], nn.Module], network: Network) -> nn.Module:
    """The network in torch, whose layers have parameters only while they run; all in the same place, so that memory is not scattered."""
    with torch.device("meta"):
        module = make().eval()
    reader = _Reader(network, module)
    for name, layer in module.named_modules():
        names = {key: f"{name}.{key}" if name else key for key, _ in layer.named_parameters(recurse=False)}
        if names and any(layer.children()):
            raise BundleError(None, f"{network.name} has parameters beside the layers of {name or 'its own'}", "use another model")
        if names:
            layer.register_forward_pre_hook(partial(reader.load, names))
            layer.register_forward_hook(partial(reader.drop, names))
    for name, buffer in module.named_buffers():
        owner, _, key = name.rpartition(".")
        if key != "position_ids":
            raise BundleError(None, f"{network.name} has the buffer {name}, which is no parameter", "use another model")
        module.get_submodule(owner).register_buffer(key, torch.arange(buffer.shape[-1])[None], persistent=False)
    return module


class _Reader:
    """Reads the parameters of one layer at a time."""

    def __init__(self, network: Network, module: nn.Module) -> None:
        sizes = [[each.numel() for each in layer.parameters(recurse=False)] for layer in module.modules()]
        self._network, self._values = network, torch.empty(max(sum(each) for each in sizes))
        self._bytes = torch.empty(max(region.length for region in network.weights.values()), dtype=torch.uint8)

    def load(self, names: Mapping[str, str], layer: nn.Module, _: Any) -> None:
        start = 0
        for key, name in names.items():
            shape = getattr(layer, key).shape
            values = self._values[start : start + shape.numel()].view(shape)
            self._read(self._network.weights[name], values)
            layer._parameters[key] = nn.Parameter(values, requires_grad=False)
            start += shape.numel()

    def drop(self, names: Mapping[str, str], layer: nn.Module, *_: Any) -> None:
        for key in names:
            layer._parameters[key] = nn.Parameter(getattr(layer, key).to("meta"), requires_grad=False)

    def _read(self, region: Region, values: Tensor) -> None:
        """Raises BundleError if the file cannot be read. The file is not mapped into memory: what was read would stay there."""
        try:
            with open_regular(region.file) as file:
                file.seek(region.offset)
                data = file.read(region.length)
        except OSError as error:
            raise BundleError(region.file, f"it cannot be read: {error.strerror or error}", "check the file") from error
        if len(data) != region.length:
            raise BundleError(region.file, "it ends before its last tensor", "download the checkpoint again")
        stored = self._bytes[: region.length]
        stored.numpy()[:] = np.frombuffer(data, dtype=np.uint8)
        numbers = stored.view(_DTYPES[region.dtype])
        values.copy_(numbers.view(values.shape[::-1]).T if region.is_transposed else numbers.view(values.shape))
