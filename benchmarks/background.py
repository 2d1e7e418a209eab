"""Slowdown of images while engines are built in the background.

A runtime generates images with ONNX Runtime on the CPU while another process, at low priority, runs an artificial build that keeps every
core busy for 20 seconds. Images before, during and after the build are compared. At the end the built engines are swapped in.

    python -m benchmarks.background
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import costroute_rt
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, median_figure, run_scenario
from costroute_rt import Runtime
from costroute_rt.engines.backends.engine import Backend, BuildProgress
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.building import background
from costroute_rt.engines.machine.device import default_threads

PROMPT, SEED = "a red house by a lake at sunset, snowy mountains behind", 7
BUILD_S, QUICK_BUILD_S = 20.0, 2.0
WARM_UP, IMAGES, QUICK_IMAGES = 3, 30, 3
SLOWDOWN_TARGET = Target(high=1.25)
SWAP_TARGET = Target(low=1, high=1)
BUILD_S_VARIABLE = "COSTROUTE_ARTIFICIAL_BUILD_S"
"""Environment variable: seconds that the artificial build keeps the cores busy."""
MODULES = ("backends.setup",)
"""Modules of costroute_rt.engines in which `get_backend` is replaced."""
_ROOT = str(Path(__file__).parent.parent)
COMMAND = ("-c", f"import sys; sys.path.append({_ROOT!r}); from benchmarks.background import build_as_child; build_as_child()")
TIMEOUT_S = 300.0


class ArtificialBackend(OnnxRuntimeBackend):
    """ONNX Runtime under another name; its first build keeps every core busy for the given seconds."""

    name = "artificial"

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        seconds = float(os.environ.pop(BUILD_S_VARIABLE, "0"))
        threads = [threading.Thread(target=_keep_busy, args=(time.monotonic() + seconds,)) for _ in range(default_threads())]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        super().build(graph, target, spec, progress)


def _keep_busy(until_s: float) -> None:
    import hashlib

    block = bytes(1 << 22)
    while time.monotonic() < until_s:  # hashing releases the interpreter lock, so that the threads run in parallel
        hashlib.sha256(block).digest()


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("background", __doc__ or "")
    parser.add_argument("--candidate", metavar="NAME", help="candidate to run (default: the last of the pool)")
    args = parser.parse_args(argv)
    return run_benchmark("background", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario, in a temporary store."""
    build_s, images = (QUICK_BUILD_S, QUICK_IMAGES) if args.quick else (BUILD_S, IMAGES)
    scenario = Scenario(
        name="while building",
        settings={"prompt": PROMPT, "candidate": args.candidate, "build_s": build_s, "threads": default_threads()},
        warm_up=WARM_UP,
        repeats=images,
        targets={"slowdown": SLOWDOWN_TARGET, "engines swapped in": SWAP_TARGET},
    )
    return [run_scenario(scenario, partial(measure, args, build_s, images))]


def measure(args: argparse.Namespace, build_s: float, images: int, scenario: Scenario) -> Measurement:
    """Image times before, during and after the build; slowdown is the median during it over the mean of the other two medians."""
    bundle = args.bundle or costroute_rt.shipped_bundle()
    _register()
    background.COMMAND = COMMAND
    os.environ[BUILD_S_VARIABLE] = "0"
    with tempfile.TemporaryDirectory() as home:
        with Runtime.open(bundle, home=home, build=True) as runtime:
            candidate = args.candidate or runtime.candidates[-1].name
            generate = partial(runtime.generate, PROMPT, seed=SEED, candidate=candidate)
            before_ms = _time_images(generate, WARM_UP + images, lambda: False)[WARM_UP:]
        os.environ[BUILD_S_VARIABLE] = str(build_s)
        with Runtime.open(bundle, home=home, backend=ArtificialBackend.name, background_build=True) as runtime:
            upgrade = runtime._resources.upgrade
            if upgrade is None:
                raise RuntimeError("no engine needs to be built")
            generate = partial(runtime.generate, PROMPT, seed=SEED, candidate=candidate)
            log(f"generating images during a build of at least {build_s:.0f} s")
            while upgrade.status().graph is None and not upgrade.status().is_over:
                time.sleep(0.01)
            started = time.monotonic()
            during_ms = _time_images(generate, WARM_UP + 100 * images, lambda: time.monotonic() - started > build_s)[WARM_UP:]
            upgrade.wait(TIMEOUT_S)
            after = generate()
            after_ms = _time_images(generate, WARM_UP + images, lambda: False)[WARM_UP:]
            building = upgrade.status()
        swapped = after.settings["backend"] == ArtificialBackend.name
    figures = [median_figure(name, times, "ms") for name, times in (("before", before_ms), ("during", during_ms), ("after", after_ms))]
    around = (figures[0].value + figures[2].value) / 2
    figures += [
        Figure(name="slowdown", value=figures[1].value / around, unit="ratio"),
        Figure(name="engines swapped in", value=float(swapped), unit="count"),
    ]
    built = building.problem or "; ".join(sorted(set(building.rejected.values()))) or f"{building.done} of {building.total} engines"
    return Measurement(figures=figures, notes={"candidate": candidate, "images during": str(len(during_ms)), "built": built})


def _time_images(generate: Callable[[], costroute_rt.Result], count: int, is_over: Callable[[], bool]) -> list[float]:
    """Milliseconds of up to `count` images; stops earlier once `is_over`, after a few images."""
    times: list[float] = []
    while len(times) < count and not (is_over() and len(times) > WARM_UP + 1):
        times.append(generate().actual_ms)
    return times


def find_backend(name: str) -> Backend:
    """`get_backend` extended by the artificial backend."""
    return ArtificialBackend() if name == ArtificialBackend.name else get_backend(name)


def _register() -> None:
    """Makes the artificial backend known to this process."""
    for module in MODULES:
        setattr(import_module(f"costroute_rt.engines.{module}"), "get_backend", find_backend)  # noqa: B010  (the module is a variable)


def build_as_child() -> None:
    """Entry point of the building process."""
    _register()
    sys.exit(background.main())


if __name__ == "__main__":
    sys.exit(main())
