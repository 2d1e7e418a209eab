"""Time and memory of exporting a model of full size, network by network, without and with the check against torch.

Each network is exported by a separate process, from random weights that `python -m benchmarks.peers.model` writes.

    python -m benchmarks.export                  (Stable Diffusion 1.5: 2 GB of disk)
    python -m benchmarks.export --model sdxl     (7 GB of disk)

Peak memory includes the pages of the weight file that the check maps into memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.peers.model import MODELS, write_model
from benchmarks.process import run_process
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, run_scenario

TIME_TARGET = Target(high=180.0)
MEMORY_TARGET = Target(high=6.0 * 1.073741824)
"""GB of the exporting process: 6 GiB."""
_USES = {"unet": ("condition", "step", "guided_step"), "vae": ("encode", "decode")}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("export", __doc__ or "")
    parser.add_argument("--model", choices=sorted(MODELS), default="sd15", help="what to export (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("export", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    networks = ("vae",) if args.quick else tuple(MODELS[args.model])
    with tempfile.TemporaryDirectory() as folder:
        log(f"writing {args.model} with random weights")
        write_model(args.model, Path(folder))
        return [run_scenario(each, partial(measure, Path(folder))) for each in make_scenarios(args.model, networks)]


def make_scenarios(model: str, networks: Sequence[str]) -> list[Scenario]:
    targets = {"time": TIME_TARGET, "peak memory": MEMORY_TARGET}
    return [
        Scenario(name=f"{model}: {name}{', checked' if checks else ''}", settings={"network": name, "checks": checks}, targets=targets)
        for name in networks
        for checks in (False, True)
    ]


def measure(folder: Path, scenario: Scenario) -> Measurement:
    code = "import sys; from benchmarks.export import print_export; print_export(*sys.argv[1:])"
    settings = scenario.settings
    command = [sys.executable, "-c", code, str(folder), settings["network"], "checked" if settings["checks"] else "unchecked"]
    report = json.loads(run_process(command).stdout.splitlines()[-1])
    return Measurement(
        figures=[
            Figure(name="time", value=report["s"], unit="s"),
            Figure(name="CPU time", value=report["cpu_s"], unit="s"),
            Figure(name="peak memory", value=report["peak_gb"], unit="GB"),
            Figure(name="graphs", value=report["graph_bytes"] / 1e6, unit="MB"),
            Figure(name="nodes", value=report["nodes"], unit="count"),
        ]
    )


def print_export(folder: str, network: str, checks: str) -> None:
    """Exports in this process and prints as JSON: seconds, CPU seconds, peak memory in GB, and the size of the graphs."""
    from costroute_rt.export.checkpoint.source.opening import open_source
    from costroute_rt.export.network.graphs import make_graphs

    source = open_source(Path(folder))
    started, cpu_started = time.perf_counter(), time.process_time()
    graphs = make_graphs(source, network, _USES.get(network, ("encode",)), checks=checks == "checked")
    report: dict[str, float] = {"s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu_started}
    unit = 1 if sys.platform == "darwin" else 1024
    report["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    report["graph_bytes"] = sum(len(model.SerializeToString()) for model in graphs.values())
    report["nodes"] = sum(len(model.graph.node) for model in graphs.values())
    print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(main())
