"""Exports one network of a checkpoint: weights as float16 safetensors, and ONNX graphs that refer to them."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costroute_rt.engines.bundle.manifest import GraphSpec
from costroute_rt.error import BundleError
from costroute_rt.export.graph.compose import strip_notes
from costroute_rt.export.graph.weights import reference_weights

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSET = 18
_PATH_KEYS = frozenset({"_name_or_path", "name_or_path", "tokenizer_file", "special_tokens_map_file"})


def write_weights(module: Any, path: Path) -> None:
    """Writes a module's state as float16 safetensors, and rounds the module's own float32 weights to what was written.

    A tensor that float16 cannot hold stays float32. Raises BundleError for weights that are not finite.
    """
    import torch
    from safetensors.torch import save_file

    stored = {}
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                stored[name] = tensor.clone().contiguous()
                continue
            if not tensor.isfinite().all():
                raise BundleError(path, f"its tensor {name} holds values that are not finite", "train or download the checkpoint again")
            halved = tensor.half()
            stored[name] = (halved if halved.isfinite().all() else tensor.float().clone()).contiguous()
            tensor.copy_(stored[name])
    save_file(stored, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors leaves it readable by the owner alone


def export_graph(module: Any, config: Any, weights: Path, scratch: Path) -> ModelProto:
    """Exports `module` with optimum to an ONNX graph that refers to `weights` (written by `write_weights`).

    config: an optimum OnnxConfig. scratch: directory for temporary files, which take as much space as the module in float32.
    """
    import onnx
    from optimum.exporters.onnx import export

    with tempfile.TemporaryDirectory(dir=scratch) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns about every shape it reads
        path = Path(folder) / "model.onnx"
        export(model=module, config=config, output=path, disable_dynamic_axes_fix=True)
        model = onnx.load(path, load_external_data=False)
        reference_weights(model, [weights], base_dir=Path(folder))
    strip_notes(model)
    return model


def trace_graph(module: Any, example: Sequence[Any], weights: Path, spec: GraphSpec) -> ModelProto:
    """Exports `module` with torch's tracer to an ONNX graph that refers to `weights` (written by `write_weights`).

    example: one tensor for each input. spec: names of inputs and outputs, and of their free axes.
    """
    import onnx
    import torch

    axes = {
        name: {axis: length for axis, length in enumerate(port.shape) if isinstance(length, str)}
        for side in (spec.inputs, spec.outputs)
        for name, port in side.items()
    }
    with tempfile.TemporaryDirectory(dir=weights.parent) as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns about every shape it reads
        path = Path(scratch) / "model.onnx"
        torch.onnx.export(
            module,
            tuple(example),
            path,
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
            # No folding: it would merge batch norms into weights, and the merged weights are not in the file.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        model = onnx.load(path, load_external_data=False)
        reference_weights(model, [weights], base_dir=Path(scratch))
    strip_notes(model)
    return model


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def remove_paths(folder: Path) -> None:
    """Removes the checkpoint's path, which the libraries store in their JSON files."""
    for path in folder.rglob("*.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and _PATH_KEYS & value.keys():
            write_json(path, {key: item for key, item in value.items() if key not in _PATH_KEYS})
