"""Several models in one process whose memory is limited to less than they need together.

    python -m benchmarks.memory
    python -m benchmarks.memory --families                           needs the export extra
    python -m benchmarks.memory --pool desk.pool --max-memory 6GiB

Prompts go to the pool's candidates in turns, in an order that makes engines leave and come back. Measured: how far the predicted time of
each image, loads included, is from the actual one, and the most memory that the process had, watched from outside (Linux). The models are
those of --pool, or with --families the bundle, Stable Diffusion 1.5 and SDXL Turbo (random weights, few channels, images of 512 px), or the
bundle's denoisers. Without --max-memory, the limit is half way between the least with which every candidate can run and what all of them
need.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import costroute_rt
from benchmarks.peers.model import NARROW, write_folder
from benchmarks.process import run_process
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, run_scenario
from benchmarks.split_bundle import split_bundle

PROMPTS, QUICK_PROMPTS = 50, 8
WITHIN = Target(high=0.15)
"""Median distance of the actual time from the predicted one, relative to it."""
WATCH_S = 0.005


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("memory", __doc__ or "")
    parser.add_argument("--pool", type=Path, metavar="FOLDER", help="pool of the models")
    parser.add_argument("--families", action="store_true", help="export models of two other families, and use a pool of all three")
    parser.add_argument("--max-memory", metavar="SIZE", help="limit, such as 6GiB")
    args = parser.parse_args(argv)
    return run_benchmark("memory", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    from costroute_rt.cli.number import Size

    stated = None if args.max_memory is None else Size().convert(args.max_memory, None, None)
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle or costroute_rt.shipped_bundle()
        pool = args.pool or (make_families(bundle, Path(folder)) if args.families else _make_pool(bundle, Path(folder)))
        log("building and measuring what is missing")
        watch(args, pool, 0, 0)
        facts, _ = watch(args, pool, 0, 0)  # of a process that built nothing, which takes memory of its own
        limit = stated or (facts["least"] + facts["all"]) // 2
        prompts = QUICK_PROMPTS if args.quick else PROMPTS
        scenarios = [
            Scenario(name="no limit", settings={"prompts": prompts, "limit_bytes": 0}, targets={"off": WITHIN}),
            Scenario(
                name="limit",
                settings={"prompts": prompts, "limit_bytes": limit},
                targets={"off": WITHIN, "over the limit": Target(high=0.0)},
            ),
        ]
        return [run_scenario(each, partial(measure, args, pool)) for each in scenarios]


def _make_pool(bundle: Path, folder: Path) -> Path:
    from costroute_rt.engines.bundle.bundle import Bundle
    from costroute_rt.engines.bundle.pool_making import combine
    from costroute_rt.routing.pool_writing import write_pool

    parts = [Bundle.open(path, verify=False) for path in split_bundle(bundle, folder / "parts")]
    return write_pool(combine(parts), folder / "pool", force=False).root


def make_families(bundle: Path, folder: Path) -> Path:
    """A pool of the bundle and of two models that are exported by the commands that users type."""
    bundles = [bundle]
    for model, name, options in (("sd15", "sd15", ("--steps", "4,8")), ("sdxl", "sdxl-turbo", ("--steps", "1,4"))):
        source = write_folder(model, folder / name, NARROW[model])
        bundles.append(folder / f"{name}.bundle")
        _costroute("export", source, "-o", bundles[-1], *options)
    _costroute("pool", *bundles, "-o", folder / "families.pool")
    return folder / "families.pool"


def _costroute(*words: object) -> None:
    log(f"costroute-rt {' '.join(map(str, words))}")
    run_process([sys.executable, "-m", "costroute_rt.cli", *map(str, words)])


def measure(args: argparse.Namespace, pool: Path, scenario: Scenario) -> Measurement:
    limit = scenario.settings["limit_bytes"]
    found, peak = watch(args, pool, limit, scenario.settings["prompts"])
    ratios = np.array([actual / predicted for predicted, actual, _ in found["images"]])
    low, median, high = np.percentile(np.abs(ratios - 1), [25, 50, 75]).tolist()
    figures = [
        Figure(name="off", value=median, unit="share", low=low, high=high),
        Figure(name="actual / predicted", value=float(np.median(ratios)), unit="ratio"),
        Figure(name="with loads", value=sum(swap > 0 for _, _, swap in found["images"]), unit="count"),
        Figure(name="loading", value=sum(swap for _, _, swap in found["images"]) / len(ratios), unit="ms"),
        Figure(name="an image", value=sum(actual for _, actual, _ in found["images"]) / len(ratios), unit="ms"),
        Figure(name="most memory", value=peak / 1e6, unit="MB"),
    ]
    if limit:
        figures.append(Figure(name="limit", value=limit / 1e6, unit="MB"))
        figures.append(Figure(name="over the limit", value=max(peak - limit, 0) / 1e6, unit="MB"))
    return Measurement(figures=figures)


def watch(args: argparse.Namespace, pool: Path, limit: int, prompts: int) -> tuple[Any, int]:
    """What `make_images` prints in a process of its own, and the most memory that the process had."""
    words = [str(pool), str(limit), str(prompts)]
    environment = {**os.environ, **({} if args.home is None else {"COSTROUTE_HOME": str(args.home)})}
    code = "import sys; from benchmarks.memory import make_images; make_images(*sys.argv[1:])"
    peak = 0
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, env=environment) as child:
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            with suppress(OSError):
                lines = status.read_text().splitlines()
                peak = max([peak, *(int(line.split()[1]) << 10 for line in lines if line.startswith(("VmHWM:", "VmRSS:")))])
            time.sleep(WATCH_S)
        said = child.stdout.read() if child.stdout is not None else ""
    if child.returncode:
        raise RuntimeError(f"the process that makes images ended with exit code {child.returncode}")
    return json.loads(said), peak


def make_images(pool: str, limit: str, prompts: str) -> None:
    """Prints predicted, actual and loading milliseconds of each image, or without prompts what limits make sense."""
    from costroute_rt import Runtime
    from costroute_rt.family.memory import find_phases
    from costroute_rt.request import make_request

    bound = int(limit) or (1 << 50 if not int(prompts) else None)
    with Runtime.open(pool=pool, build=not int(prompts), max_memory_bytes=bound) as runtime:
        resources = runtime._resources
        if not int(prompts):
            held = resources.engines.limit
            assert held is not None
            request = make_request("a lake")
            calls = {each.name: resources.calls(each, request) for each in runtime.candidates}
            names = {call.engine for each in calls.values() for call in each}
            every = held.least_bytes((tuple(sorted(names)),))
            print(json.dumps({"least": max(held.least_bytes(find_phases(each, 1)) for each in calls.values()), "all": every}))
            return
        rng, images = random.Random(0), []
        for index in range(int(prompts)):
            name = rng.choice(runtime.candidates).name
            result = runtime.generate(f"a red house by lake number {index}", candidate=name, seed=index)
            images.append((result.predicted_ms, result.actual_ms, result.timings.swap_ms))
        print(json.dumps({"images": images}))


if __name__ == "__main__":
    sys.exit(main())
