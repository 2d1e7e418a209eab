"""The check of a network's graph against torch: the same finite outputs for inputs of two shapes.

A full-size SDXL denoiser takes 13 GB of memory in torch. Here each layer reads its weights from the file when it runs and drops them
after, and images are small, so that the largest layer is what counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    module, worst = _streamed(make, network), Parity(0.0, "")
    folder = next(iter(network.files())).parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".check-", suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        with OnnxRuntimeBackend().open_reference(Path(file.name)) as engine:
            for index, lengths in enumerate(SHAPES):
                feeds = example(spec, network.config, lengths, np.random.default_rng(index))
                with torch.no_grad():
                    wanted = run(module, {name: torch.from_numpy(value) for name, value in feeds.items()})
                found = engine.run(feeds)
                for name, value in wanted.items():
                    error = _compare(f"{network.name}.{name}", engine.to_host(found[name]), value.numpy(), folder)
                    worst = max(worst, Parity(error, name), key=lambda each: each.error)
    return worst


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
    """The network in torch, whose layers have parameters only while they run."""
    with torch.device("meta"):
        module = make().eval()
    maps: dict[Path, npt.NDArray[np.uint8]] = {file: np.memmap(file, dtype=np.uint8, mode="r") for file in network.files()}
    for name, layer in module.named_modules():
        names = {key: f"{name}.{key}" if name else key for key, _ in layer.named_parameters(recurse=False)}
        if not names:
            continue

        def load(layer: nn.Module, *_: Any, names: Mapping[str, str] = names) -> None:
            for key, full in names.items():
                region, shape = network.weights[full], getattr(layer, key).shape
                layer._parameters[key] = nn.Parameter(read_region(region, maps[region.file], tuple(shape)), requires_grad=False)

        def drop(layer: nn.Module, *_: Any, names: Mapping[str, str] = names) -> None:
            for key in names:
                layer._parameters[key] = nn.Parameter(layer._parameters[key].to("meta"), requires_grad=False)

        layer.register_forward_pre_hook(load)
        layer.register_forward_hook(drop)
    for name, buffer in module.named_buffers():
        if buffer.is_meta:
            owner, _, key = name.rpartition(".")
            if key != "position_ids":
                raise BundleError(None, f"{network.name} has the buffer {name}, which is no parameter", "use another model")
            module.get_submodule(owner).register_buffer(key, torch.arange(buffer.shape[-1])[None], persistent=False)
    return module


def read_region(region: Region, data: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Tensor:
    """A parameter of `shape` in float32; data: the bytes of its file."""
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[region.dtype]
    stored = torch.from_numpy(np.array(data[region.offset : region.offset + region.length])).view(kind).float()
    return stored.reshape(shape[::-1]).T.contiguous() if region.is_transposed else stored.reshape(shape)
