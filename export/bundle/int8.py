"""The denoiser with int8 weights beside the float one in a bundle: its component, its candidates, and the check of its images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.graph_spec import to_json
from costroute_rt.engines.bundle.image_gate import ImageGate
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.export.bundle.graph_file import write_graph
from costroute_rt.export.checkpoint.source.network import Network
from costroute_rt.export.families.pool import PoolPlan
from costroute_rt.export.quantisation.component import quantise_graphs
from costroute_rt.family.family import Family
from costroute_rt.generation.image_gate import compare_images, gate_size

INT8 = "-int8"
"""End of the names of the component, of its files, and of its candidates before the @."""
_QUALITY_LOSS = 0.005
"""Of the prior: less than that of any other reduction."""


def with_int8(pool: PoolPlan, denoiser: str) -> PoolPlan:
    """The pool with a candidate of int8 weights for each of those of `denoiser`."""
    rows, quality = list(pool.rows), dict(pool.quality["candidates"])
    for row in pool.rows:
        if row["denoiser"] == denoiser:
            name = str(row["name"]).replace("@", f"{INT8}@", 1)
            rows.append({**row, "name": name, "denoiser": denoiser + INT8})
            quality[name] = {**quality[row["name"]], "mean": round(quality[row["name"]]["mean"] - _QUALITY_LOSS, 4)}
    return replace(pool, rows=tuple(rows), quality={**pool.quality, "candidates": quality})


def without_int8(pool: PoolPlan, denoiser: str) -> PoolPlan:
    """The pool without the candidates that `with_int8` added."""
    rows = tuple(row for row in pool.rows if row["denoiser"] != denoiser + INT8)
    kept = {row["name"]: pool.quality["candidates"][row["name"]] for row in rows}
    return replace(pool, rows=rows, quality={**pool.quality, "candidates": kept})


def int8_bytes(network: Network) -> int:
    """At most, of the int8 weights of a network: matrices are stored with two axes."""
    return sum(math.prod(region.shape) for region in network.weights.values() if len(region.shape) == 2)


def write_int8(bundle: Path, component: Mapping[str, Any], on_share: Callable[[float], object]) -> dict[str, Any]:
    """Write int8 weights and graphs beside those of a component; returns what they add to the manifest.

    component: its section of the manifest. on_share: called with the finished share; what it raises ends the work.
    Raises BundleError, OutputError.
    """
    import onnx

    folder = (bundle / next(iter(component["graphs"].values()))).parent
    graphs = {use: onnx.load(str(bundle / path), load_external_data=False) for use, path in component["graphs"].items()}
    total, done = sum(len(model.graph.initializer) for model in graphs.values()), 0

    def on_tensor(_: str) -> None:
        nonlocal done
        on_share(min(done / max(total, 1), 1.0))
        done += 1

    file = f"weights{INT8}.safetensors"
    made = quantise_graphs(graphs, folder, file, on_tensor)
    paths = {use: f"{folder.name}/{Path(path).stem}{INT8}.onnx" for use, path in component["graphs"].items()}
    for use, model in made.graphs.items():
        write_graph(model, bundle / paths[use])
    own = {
        "graphs": paths,
        "weights": [f"{folder.name}/{file}" for file in made.weights],
        "weights_bytes": made.weights_bytes,
        "weight_precision": "int8",
    }
    specs = {paths[use]: to_json(graph_spec(model)) for use, model in made.graphs.items()}
    return {"component": {**component, **own}, "graphs": specs, "placed": [(folder / file).stat().st_size, 0]}


def remove_int8(bundle: Path, denoiser: str) -> None:
    """Remove what `write_int8` wrote."""
    for path in (bundle / denoiser).glob(f"*{INT8}.*"):
        path.unlink()


def check_int8(bundle: Bundle, denoiser: str, on_run: Callable[[], object] = lambda: None) -> ImageGate:
    """Compare images of the component with int8 weights with those of the float one, both by their graphs as they are, on the CPU.

    on_run: called before each run of a graph; what it raises ends the work. Raises EngineError.
    """
    from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend

    family, backend = Family.open(bundle), OnnxRuntimeBackend()
    other = max((each for each in family.pool if each.denoiser == denoiser + INT8), key=lambda each: each.num_inference_steps)
    exact = next(each for each in family.pool if each == replace(other, name=each.name, denoiser=denoiser))

    def open_graph(name: str) -> Any:
        _, component, graph, _ = EngineName.parse(name)
        return backend.open_reference(bundle.path(bundle.graph_path(component, graph)), is_frugal=True)

    size = gate_size(family, other)
    return compare_images(family, other, open_graph, exact, open_graph, size=size, reference=denoiser, on_run=on_run)
