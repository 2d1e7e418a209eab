"""Speed and accuracy of each backend on this CPU.

Times one guided step of a denoiser, with the backends interleaved, and compares a few complete images. The baseline is ONNX Runtime in
float32. A precision that the CPU does not support is skipped and reported as skipped.

    python -m benchmarks.backends
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

import costroute_rt
from benchmarks.peer import NAME, Pixels, psnr_db, with_steps
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import (
    PAUSE_S,
    Figure,
    Measurement,
    Outcome,
    Scenario,
    Target,
    defer_failure,
    log,
    median_figure,
    ratio_figure,
    run_interleaved,
    run_scenario,
)
from costroute_rt import Bundle, Runtime
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.machine.device import default_threads
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError

Arrays = Mapping[str, npt.NDArray[Any]]
BASELINE = "onnxruntime float32"
VARIANTS = (BASELINE, "openvino float32", "openvino bfloat16")
"""Backend and precision."""
PROMPTS = ("a red house by a lake at sunset, snowy mountains behind", "a starry night", "a white sailboat on a lake, three pine trees")
STEPS, SEED = 8, 7
SPEEDUP_TARGETS = {"bfloat16": Target(low=1.6)}
ERROR_TARGETS = {"float32": Target(high=1e-4)}
"""Largest relative error of a guided step against the reference graph."""
PSNR_TARGETS = {"float32": Target(low=40.0), "float16": Target(low=25.0), "bfloat16": Target(low=25.0)}
"""Lowest peak signal-to-noise ratio to the baseline's images: 40 dB are differences of about two levels of 255, 25 dB the same scene."""


@dataclass(frozen=True, slots=True)
class TimedCall:
    """One guided step."""

    ms: float
    outputs: Arrays


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("backends", __doc__ or "")
    parser.add_argument("--denoiser", default="base", metavar="NAME", help="denoiser to run, with guidance (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("backends", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per backend and precision."""
    bundle, store = Bundle.open(args.bundle or costroute_rt.shipped_bundle()), Store.open(args.home)
    source = bundle.verify_graph(args.denoiser, "guided_step")
    feeds = example_feeds(bundle, bundle.graph_path(args.denoiser, "guided_step"))
    with OnnxRuntimeBackend().open_reference(source) as reference:
        expected = reference.run(feeds)
    scenarios = {variant: make_scenario(variant, args.denoiser, quick=args.quick) for variant in VARIANTS}
    supported = [variant for variant in VARIANTS if scenarios[variant].targets]
    baseline = scenarios[BASELINE]
    with ExitStack() as stack:
        timed = {variant: defer_failure(partial(open_step, variant, bundle, store, args.denoiser, feeds, stack)) for variant in supported}
        log(f"{baseline.warm_up} + {baseline.repeats} interleaved calls of {', '.join(timed)}")
        steps = run_interleaved(timed, warm_up=baseline.warm_up, repeats=baseline.repeats, pause_s=PAUSE_S)
    images: dict[str, list[Pixels]] = {}

    def measure(variant: str, scenario: Scenario) -> Measurement:
        if variant not in steps:
            return Measurement(figures=(), notes={"skipped": f"this CPU does not support {variant.split()[1]}"})
        calls = steps[variant]
        if isinstance(calls, Exception):
            raise calls
        images[variant] = generate_images(bundle, args, variant)
        return summarise(calls, steps[BASELINE], expected, images[variant], images.get(BASELINE))

    return [run_scenario(scenario, partial(measure, variant)) for variant, scenario in scenarios.items()]


def make_scenario(variant: str, denoiser: str, *, quick: bool) -> Scenario:
    """The scenario of one backend and precision; without targets where the CPU does not support the precision."""
    backend, precision = variant.split()
    targets = {"relative error": ERROR_TARGETS.get(precision)}
    if variant != BASELINE:
        targets |= {"speedup": SPEEDUP_TARGETS.get(precision), "PSNR": PSNR_TARGETS.get(precision)}
    settings = {"backend": backend, "precision": precision, "denoiser": denoiser, "threads": default_threads(), "prompts": list(PROMPTS)}
    warm_up, repeats = (1, 2) if quick else (5, 60)
    required = {name: target for name, target in targets.items() if target is not None and is_supported(variant)}
    return Scenario(name=variant, settings=settings, warm_up=warm_up, repeats=repeats, targets=required)


def is_supported(variant: str) -> bool:
    """Whether this CPU supports the precision; True for a backend that is not installed, which fails when it is opened."""
    backend, precision = variant.split()
    try:
        get_backend(backend).device(make_spec(precision=precision))
    except ConfigError:
        return False
    except costroute_rt.BackendError:
        return True
    return True


def open_step(variant: str, bundle: Bundle, store: Store, denoiser: str, feeds: Arrays, stack: ExitStack) -> Callable[[], TimedCall]:
    """Builds and opens the guided step; returns a function that runs it and copies its outputs to host memory."""
    backend, precision = variant.split()
    log(f"opening {variant}")
    setup, name = Setup.of(backend, precision=precision), f"{bundle.family}/{denoiser}/guided_step"
    build_engines(bundle, store, [name], setup, measure=False)
    engine = stack.enter_context(open_engine(bundle, store, name, setup))
    values = {name: engine.to_device(array) for name, array in feeds.items()}

    def call() -> TimedCall:
        started = time.perf_counter()
        outputs = {name: engine.to_host(value) for name, value in engine.run(values).items()}
        return TimedCall((time.perf_counter() - started) * 1000, outputs)

    return call


def generate_images(bundle: Bundle, args: argparse.Namespace, variant: str) -> list[Pixels]:
    """One image per prompt from this backend."""
    backend, precision = variant.split()
    with (
        with_steps(bundle, args.denoiser, (STEPS,)) as root,
        Runtime.open(root, home=args.home, backend=backend, precision=precision, build=True, preload=False) as runtime,
    ):
        return [runtime.generate(prompt, seed=SEED, candidate=NAME.format(STEPS)).pixels[0] for prompt in PROMPTS]


def summarise(
    calls: Sequence[TimedCall],
    baseline: Sequence[TimedCall] | Exception,
    expected: Arrays,
    images: Sequence[Pixels],
    baseline_images: Sequence[Pixels] | None,
) -> Measurement:
    """Time and error of one backend, and its speedup and PSNR against the baseline."""
    times = [call.ms for call in calls]
    figures = [median_figure("guided step", times, "ms"), Figure(name="relative error", value=largest_error(expected, calls[0].outputs))]
    if not isinstance(baseline, Exception) and baseline is not calls:
        figures.append(ratio_figure("speedup", [call.ms for call in baseline], times))
    if baseline_images is not None and baseline_images is not images:
        figures.append(Figure(name="PSNR", value=min(map(psnr_db, images, baseline_images)), unit="dB"))
    return Measurement(figures=figures)


def largest_error(expected: Arrays, outputs: Arrays) -> float:
    """Largest error over all outputs, relative to the largest value of each output, or to 1 where that is smaller."""
    return max(float(np.abs(outputs[name] - want).max() / max(1.0, np.abs(want).max())) for name, want in expected.items())


if __name__ == "__main__":
    sys.exit(main())
