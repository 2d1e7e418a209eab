"""Where OpenVINO spends the time of a step and of decoding, by kind of operator: the graphs as they are exported, and as they are built.

Nodes are timed by the library itself, which makes a run a little slower. Both graphs run in turns; each figure is a median over runs.
`moves` are changes of a tensor's layout in memory, `element-wise` what the library has joined into one kernel, and `whole run` is measured
from outside.

    python -m benchmarks.operators
    python -m benchmarks.operators --precision bfloat16
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import costroute_rt
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, defer_failure, median_figure, run_interleaved, run_scenario
from costroute_rt import Bundle
from costroute_rt.engines.backends.openvino.backend import speed_up_on_cpu
from costroute_rt.engines.backends.openvino.weight import keep_weights_packed
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.machine.device import default_threads
from costroute_rt.engines.machine.telemetry import without_openvino_telemetry

GRAPHS = ("/guided_step", "/step", "/decode")
"""How the names of those that are measured end."""
KINDS = {
    **dict.fromkeys(("Convolution", "GroupConvolution", "ConvolutionBackpropData"), "convolutions"),
    **dict.fromkeys(("FullyConnected", "MatMul", "ScaledDotProductAttention"), "matrix products"),
    **dict.fromkeys(("MVN", "ReduceMean", "Tile"), "norms"),
    **dict.fromkeys(("Reorder", "Transpose"), "moves"),
    **dict.fromkeys(("Subgraph", "Eltwise"), "element-wise"),
    "Interpolate": "upsampling",
}
"""What OpenVINO's types of nodes are reported as."""
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
WARM_UP, REPEATS, QUICK_REPEATS = 3, 40, 2
Times = dict[str, float]
"""Milliseconds of one run, by kind of operator."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("operators", __doc__ or "")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="what to compute in (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("operators", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    bundle, outcomes = Bundle.open(args.bundle or costroute_rt.shipped_bundle()), []
    repeats = QUICK_REPEATS if args.quick else REPEATS
    graphs = {f"{name}/{graph}": path for name, each in bundle.components.items() for graph, path in each.graphs.items()}
    for name in (name for name in graphs if name.endswith(GRAPHS)):
        path = graphs[name]
        calls = {kind: defer_failure(partial(_open, bundle, path, args.precision, kind == "built")) for kind in ("exported", "built")}
        runs = run_interleaved(calls, warm_up=WARM_UP, repeats=repeats)
        for kind, times in runs.items():
            scenario = Scenario(
                name=f"{name}, as {kind}", settings={"graph": path, "precision": args.precision}, warm_up=WARM_UP, repeats=repeats
            )
            outcomes.append(run_scenario(scenario, partial(_summarise, times)))
    return outcomes


def _summarise(times: list[Times] | Exception, _: Scenario) -> Measurement:
    if isinstance(times, Exception):
        raise times
    names = dict.fromkeys(name for each in times for name in each)
    return Measurement(figures=[_figure(name, [each.get(name, 0.0) for each in times]) for name in names])


def _figure(name: str, values: Sequence[float]) -> Figure:
    return median_figure(name, values, "count" if name == "nodes" else "ms")


def _open(bundle: Bundle, path: str, precision: str, is_changed: bool) -> Any:
    """Runs the graph once; returns its times."""
    with without_openvino_telemetry():
        import openvino

    core, feeds = openvino.Core(), example_feeds(bundle, path)
    model = core.read_model(bundle.path(path))
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    keep_weights_packed(model)
    if is_changed:
        speed_up_on_cpu(openvino, model)
    settings = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision], "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
    settings |= {"INFERENCE_NUM_THREADS": default_threads(), "ENABLE_CPU_PINNING": False}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    for name, array in feeds.items():
        request.set_tensor(name, openvino.Tensor(array))

    def run() -> Times:
        began_s = time.perf_counter()
        request.infer()
        spent: Times = defaultdict(float, {"whole run": (time.perf_counter() - began_s) * 1e3, **dict.fromkeys(KINDS.values(), 0.0)})
        for node in request.get_profiling_info():
            ms = node.real_time.total_seconds() * 1e3
            spent[KINDS.get(node.node_type, "other")] += ms
            spent["nodes"] += ms > 0
        return spent

    return run


if __name__ == "__main__":
    sys.exit(main())
