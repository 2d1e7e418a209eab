"""Size, memory, time and image quality of each precision: float32, bfloat16 and float16 engines, each with float and with int8 weights.

    python -m benchmarks.precision
    python -m benchmarks.precision --bundle sd15.bundle --denoiser unet

Times one step of a denoiser, with all variants interleaved, and compares images with those of ONNX Runtime in float32: the same prompts and
seeds through the real loop (latent PSNR, SSIM of pixels; the worst image counts). A bundle without int8 weights gets them in a copy that
shares its files. A precision that this CPU does not support is skipped and reported as skipped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import costroute_rt
from benchmarks.backends import is_supported
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
from costroute_rt import Bundle
from costroute_rt.candidate import Candidate
from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_each, open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.lookup import engine_key, read_cost
from costroute_rt.engines.bundle.bundle import seal_bundle
from costroute_rt.engines.bundle.image_gate import MIN_LATENT_PSNR_DB, MIN_SSIM
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError, Reason
from costroute_rt.export.bundle.int8 import INT8, write_int8
from costroute_rt.family.calls import candidate_calls
from costroute_rt.family.family import Family
from costroute_rt.generation.image_gate import compare_images, gate_size

BASELINE = "onnxruntime float32"
VARIANTS = tuple(
    f"{setup}{weights}" for setup in (BASELINE, "openvino float32", "openvino bfloat16", "openvino float16") for weights in ("", " int8")
)
"""Backend, precision, and int8 for engines of int8 weights."""
TARGETS = {"latent PSNR": Target(low=MIN_LATENT_PSNR_DB), "SSIM": Target(low=MIN_SSIM)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("precision", __doc__ or "")
    parser.add_argument("--denoiser", default="base", metavar="NAME", help="denoiser to run (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("precision", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per variant."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        given = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
        bundle = given if args.denoiser + INT8 in given.components else with_int8_weights(given, args.denoiser, Path(folder) / "bundle")
        variants = {name: Variant(bundle, Store.open(args.home), args.denoiser, name) for name in VARIANTS}
        scenarios = {name: make_scenario(name, args.denoiser, quick=args.quick) for name in VARIANTS}
        supported = [name for name in VARIANTS if scenarios[name].targets or name == BASELINE]
        timed = {name: defer_failure(partial(variants[name].open_step, stack)) for name in supported}
        baseline = scenarios[BASELINE]
        log(f"{baseline.warm_up} + {baseline.repeats} interleaved calls of {', '.join(timed)}")
        steps = run_interleaved(timed, warm_up=baseline.warm_up, repeats=baseline.repeats, pause_s=PAUSE_S)

        def measure(name: str, scenario: Scenario) -> Measurement:
            if name not in steps:
                return Measurement(figures=(), notes={"skipped": f"this CPU does not support {name.split()[1]}"})
            times, exact = steps[name], steps[BASELINE]
            if isinstance(times, Exception):
                raise times
            figures = [*variants[name].sizes(), median_figure("step", times, "ms")]
            if name != BASELINE and not isinstance(exact, Exception):
                figures += [ratio_figure("speedup", exact, times), *variants[name].images(variants[BASELINE])]
            return Measurement(figures=figures)

        return [run_scenario(scenario, partial(measure, name)) for name, scenario in scenarios.items()]


def make_scenario(name: str, denoiser: str, *, quick: bool) -> Scenario:
    """The scenario of one variant; without targets where the CPU does not support the precision."""
    backend, precision, *weights = name.split()
    settings = {"backend": backend, "precision": precision, "weights": weights[0] if weights else "float", "denoiser": denoiser}
    warm_up, repeats = (1, 2) if quick else (3, 30)
    targets = TARGETS if name != BASELINE and is_supported(f"{backend} {precision}") else {}
    return Scenario(name=name, settings=settings, warm_up=warm_up, repeats=repeats, targets=targets)


class Variant:
    """The engines of one candidate in one backend and precision."""

    def __init__(self, bundle: Bundle, store: Store, denoiser: str, name: str) -> None:
        backend, precision, *weights = name.split()
        self.bundle, self.store, self.family = bundle, store, Family.open(bundle)
        self.setup = Setup(backend=backend, precision=precision)
        usual = max((each for each in self.family.pool if each.denoiser == denoiser), key=lambda each: each.num_inference_steps)
        self.candidate: Candidate = replace(usual, name=f"{usual.name} {name}", denoiser=denoiser + (INT8 if weights else ""))
        self.names = [call.engine for call in candidate_calls(bundle, self.candidate)]
        self.step = next(name for name in self.names if name.rpartition("/")[2] in ("step", "guided_step"))

    def open_step(self, stack: ExitStack) -> Callable[[], float]:
        """Build what is missing and open the step; returns a function that runs it once and tells the milliseconds."""
        log(f"opening {self.step} on {self.setup}")
        for report in build_each(self.bundle, self.store, self.names, self.setup):
            if report.quarantined:
                raise EngineError(report.quarantined, reason=Reason.QUARANTINED, engine=report.engine)
        engine = stack.enter_context(self.open(self.step))
        path = self.bundle.graph_path(*self.step.split("/")[1:])
        values = {name: engine.to_device(array) for name, array in example_feeds(self.bundle, path).items()}

        def call() -> float:
            started = time.perf_counter()
            engine.run(values)
            return (time.perf_counter() - started) * 1000

        return call

    def open(self, name: str) -> Engine:
        return open_engine(self.bundle, self.store, name, self.setup)

    def sizes(self) -> list[Figure]:
        """Bytes of the step's engine on disk, and of the memory that it takes, as it was measured when it was built."""
        stored = self.store.peek(engine_key(self.bundle, self.step, self.setup))
        memory = read_cost(self.bundle, self.store, self.step, self.setup).memory_bytes
        size = 0 if stored is None else stored.size_bytes
        return [
            Figure(name="size", value=size / 1e6, unit="MB"),
            *([] if memory is None else [Figure(name="memory", value=memory / 1e6, unit="MB")]),
        ]

    def images(self, exact: Variant) -> list[Figure]:
        """How close its images are to those of another variant."""
        size = gate_size(self.family, self.candidate)
        gate = compare_images(self.family, self.candidate, self.open, exact.candidate, exact.open, size=size, reference=str(exact.setup))
        return [Figure(name="latent PSNR", value=gate.latent_psnr_db, unit="dB"), Figure(name="SSIM", value=gate.ssim)]


def with_int8_weights(bundle: Bundle, denoiser: str, target: Path) -> Bundle:
    """A copy of a bundle that shares its files, with int8 weights beside those of a denoiser; its pool stays."""
    log(f"making int8 weights of {denoiser}")
    shutil.copytree(bundle.root, target, copy_function=_link)
    for name in ("manifest.json", "manifest.sha256"):
        (target / name).unlink()  # a link to the bundle's own
    manifest = bundle.read_manifest()
    added = write_int8(target, manifest["components"][denoiser], lambda _: None)
    manifest["components"][denoiser + INT8] = added["component"]
    manifest["graphs"] |= added["graphs"]
    return seal_bundle(target, {key: value for key, value in manifest.items() if key not in ("format", "format_version", "files")})


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


if __name__ == "__main__":
    sys.exit(main())
