"""How fast each backend runs the same denoiser on this processor, and whether its numbers and pictures are the same.

One guided step of one denoiser, called in turns, and a few pictures of the whole family. ONNX Runtime in float32 is what the others are
held against. A precision that the processor does not compute in is left out, and told.

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
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

import costroute_rt
from benchmarks.latency import compare_pictures
from benchmarks.peer import NAME, Pixels, with_steps
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measured, Outcome, Scenario, Target, attempt, run_in_turns, say, spread
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

T = TypeVar("T")
Arrays = Mapping[str, npt.NDArray[Any]]
BASIS = "onnxruntime float32"
WAYS = (BASIS, "openvino float32", "openvino bfloat16")
"""Backend and precision."""
PROMPTS = ("a red house by a lake at sunset, snowy mountains behind", "a starry night", "a white sailboat on a lake, three pine trees")
STEPS, SEED = 8, 7
FASTER_TARGETS = {"bfloat16": Target(low=1.6)}
ERROR_TARGETS = {"float32": Target(high=1e-4)}
LIKENESS_TARGETS = {"float32": Target(low=40.0), "bfloat16": Target(low=25.0)}
"""Least peak signal-to-noise ratio to the basis' pictures: 40 dB are differences of about two levels of 255, 25 dB the same scene."""
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Call:
    """One guided step."""

    ms: float
    outputs: Arrays


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("backends", __doc__ or "")
    parser.add_argument("--denoiser", default="base", metavar="NAME", help="component to run, with guidance (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("backends", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """Every backend and precision, their calls taking turns."""
    bundle, store = Bundle.open(args.bundle or costroute_rt.shipped_bundle()), Store.open(args.home)
    source = bundle.verify_graph(args.denoiser, "guided_step")
    feeds = example_feeds(bundle, bundle.graph_path(args.denoiser, "guided_step"))
    with OnnxRuntimeBackend().open_reference(source) as reference:
        expected = reference.run(feeds)
    plans = {way: plan(way, args.denoiser, quick=args.quick) for way in WAYS}
    able = [way for way in WAYS if plans[way].targets]
    with ExitStack() as stack:
        calls = {way: keep_error(partial(open_step, way, bundle, store, args.denoiser, feeds, stack)) for way in able}
        say(f"{plans[BASIS].warm_up} + {plans[BASIS].repeats} turns of {', '.join(calls)}")
        steps = run_in_turns(calls, warm_up=plans[BASIS].warm_up, repeats=plans[BASIS].repeats, pause_s=PAUSE_S)
    pictures: dict[str, list[Pixels]] = {}

    def measure(way: str, scenario: Scenario) -> Measured:
        if way not in steps:
            return Measured(figures=(), notes={"why": f"this processor does not compute in {way.split()[1]}"})
        own = steps[way]
        if isinstance(own, Exception):
            raise own
        pictures[way] = draw(bundle, args, way)
        return describe(own, steps[BASIS], expected, pictures[way], pictures.get(BASIS))

    return [attempt(scenario, partial(measure, way)) for way, scenario in plans.items()]


def plan(way: str, denoiser: str, *, quick: bool) -> Scenario:
    """One backend and precision; without targets where the processor cannot."""
    backend, precision = way.split()
    targets = {"error": ERROR_TARGETS.get(precision)}
    if way != BASIS:
        targets |= {"times as fast": FASTER_TARGETS.get(precision), "likeness": LIKENESS_TARGETS.get(precision)}
    settings = {"backend": backend, "precision": precision, "denoiser": denoiser, "threads": default_threads(), "prompts": list(PROMPTS)}
    warm_up, repeats = (1, 2) if quick else (5, 60)
    wanted = {name: target for name, target in targets.items() if target is not None and can(way)}
    return Scenario(name=way, settings=settings, warm_up=warm_up, repeats=repeats, targets=wanted)


def can(way: str) -> bool:
    """Whether this processor computes in the precision; a backend that is not there is an error for later."""
    backend, precision = way.split()
    try:
        get_backend(backend).device(make_spec(precision=precision))
    except ConfigError:
        return False
    except costroute_rt.BackendError:
        return True
    return True


def keep_error(opener: Callable[[], Callable[[], T]]) -> Callable[[], T]:
    """What is opened; where that fails, a call that fails for the same reason."""
    try:
        return opener()
    except Exception as error:
        reason = error

        def fail() -> T:
            raise reason

        return fail


def open_step(way: str, bundle: Bundle, store: Store, denoiser: str, feeds: Arrays, stack: ExitStack) -> Callable[[], Call]:
    """A call of the guided step, its outputs back in host memory."""
    backend, precision = way.split()
    say(f"opening {way}")
    setup, name = Setup.of(backend, precision=precision), f"{bundle.family}/{denoiser}/guided_step"
    build_engines(bundle, store, [name], setup, measure=False)
    engine = stack.enter_context(open_engine(bundle, store, name, setup))
    values = {name: engine.to_device(array) for name, array in feeds.items()}

    def call() -> Call:
        started = time.perf_counter()
        outputs = {name: engine.to_host(value) for name, value in engine.run(values).items()}
        return Call((time.perf_counter() - started) * 1000, outputs)

    return call


def draw(bundle: Bundle, args: argparse.Namespace, way: str) -> list[Pixels]:
    """The pictures that this backend makes of the prompts."""
    backend, precision = way.split()
    with (
        with_steps(bundle, args.denoiser, (STEPS,)) as root,
        Runtime.open(root, home=args.home, backend=backend, precision=precision, build=True, preload=False) as runtime,
    ):
        return [runtime.generate(prompt, seed=SEED, candidate=NAME.format(STEPS)).pixels[0] for prompt in PROMPTS]


def describe(
    own: Sequence[Call], basis: Sequence[Call] | Exception, expected: Arrays, pictures: Sequence[Pixels], others: Sequence[Pixels] | None
) -> Measured:
    """The figures of one backend, beside the basis."""
    figures = [spread("guided step", [call.ms for call in own], "ms"), Figure(name="error", value=largest_error(expected, own[0].outputs))]
    if not isinstance(basis, Exception) and basis is not own:
        figures.append(compare_speed([call.ms for call in basis], [call.ms for call in own]))
    if others is not None and others is not pictures:
        likeness = min(compare_pictures(*pair).value for pair in zip(pictures, others, strict=True))
        figures.append(Figure(name="likeness", value=likeness, unit="dB"))
    return Measured(figures=figures)


def largest_error(expected: Arrays, found: Arrays) -> float:
    """Over all outputs, relative to the largest value of each, or to one."""
    return max(float(np.abs(found[name] - want).max() / max(1.0, np.abs(want).max())) for name, want in expected.items())


def compare_speed(basis_ms: Sequence[float], own_ms: Sequence[float]) -> Figure:
    """Ratio of medians, and quartiles of the ratios turn by turn."""
    ratios = spread("times as fast", [a / b for a, b in zip(basis_ms, own_ms, strict=True)], "ratio")
    return Figure(name=ratios.name, value=float(np.median(basis_ms) / np.median(own_ms)), unit="ratio", low=ratios.low, high=ratios.high)


if __name__ == "__main__":
    sys.exit(main())
