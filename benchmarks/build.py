"""Time and memory of building engines, by default with TensorRT for RTX, which builds without a GPU.

Builds the engines of the shipped bundle's pool and, with --sd15, the guided step of a denoiser of Stable Diffusion 1.5's size. Each bundle
is built by a separate process into an empty store.

    python -m benchmarks.build
    python -m benchmarks.build --sd15 FOLDER       (python -m benchmarks.random_sd15 FOLDER makes one)
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
from typing import Any

import costroute_rt
from benchmarks.process import run_process
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, run_scenario
from costroute_rt import Bundle
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.building.lookup import names_to_build
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import engine_names

TIME_TARGET = Target(high=60.0)
MEMORY_TARGET = Target(high=8.0)
"""GB of the building process."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("build", __doc__ or "")
    parser.add_argument("--backend", default="tensorrt-rtx", metavar="NAME", help="backend to build with (default: %(default)s)")
    parser.add_argument("--sd15", type=Path, metavar="FOLDER", help="bundle whose base/guided_step is also built")
    args = parser.parse_args(argv)
    return run_benchmark("build", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    shipped = args.bundle or costroute_rt.shipped_bundle()
    graphs = ("text_encoder/encode",) if args.quick else ()
    outcomes = [run_scenario(make_scenario("the shipped bundle's engines", args.backend), partial(measure, shipped, graphs))]
    if args.sd15 is not None:
        outcomes.append(run_scenario(make_scenario("SD 1.5 guided step", args.backend), partial(measure, args.sd15, ("base/guided_step",))))
    return outcomes


def make_scenario(name: str, backend: str) -> Scenario:
    return Scenario(name=name, settings={"backend": backend}, targets={"build time": TIME_TARGET, "peak memory": MEMORY_TARGET})


def measure(bundle: Path, graphs: tuple[str, ...], scenario: Scenario) -> Measurement:
    code = "import sys; from benchmarks.build import print_build; print_build(*sys.argv[1:])"
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-c", code, str(bundle), home, scenario.settings["backend"], *graphs]
        report = json.loads(run_process(command).stdout)
    for name, each in report["engines"].items():
        log(f"  {name}: {each['build_s']:.1f} s, {each['size_bytes'] / 1e6:.1f} MB")
    return Measurement(
        figures=[
            Figure(name="build time", value=report["build_s"], unit="s"),
            Figure(name="CPU time", value=report["cpu_s"], unit="s"),
            Figure(name="peak memory", value=report["peak_gb"], unit="GB"),
            Figure(name="engines", value=len(report["engines"]), unit="count"),
            Figure(name="size", value=sum(each["size_bytes"] for each in report["engines"].values()) / 1e9, unit="GB"),
        ],
        notes={"checked": "yes" if all(each["proved"] for each in report["engines"].values()) else "no"},
    )


def print_build(bundle: str, home: str, backend: str, *graphs: str) -> None:
    """Builds in this process and prints as JSON: seconds, CPU seconds, peak memory in GB, and the engines."""
    opened, setup = Bundle.open(bundle, verify=False), Setup.of(backend)
    names = [f"{opened.family}/{graph}" for graph in graphs] or names_to_build(opened, engine_names(opened), setup)
    started, cpu_started = time.perf_counter(), time.process_time()
    reports = build_engines(opened, Store.open(home), names, setup, measure=False)
    report: dict[str, Any] = {"build_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu_started}
    unit = 1 if sys.platform == "darwin" else 1024
    report["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    report["engines"] = {each.engine: {"build_s": each.build_s, "size_bytes": each.size_bytes, "proved": each.proved} for each in reports}
    print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(main())
