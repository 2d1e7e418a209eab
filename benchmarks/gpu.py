"""Runs on an NVIDIA GPU: image compared with the CPU's, copies between host and device, time per image, and speed compared with torch.

    python -m benchmarks.random_sd15 FOLDER
    python -m benchmarks.gpu --sd15 FOLDER --precision float16 --json >> gpu.jsonl
    python -m benchmarks.gpu --backend tensorrt-rtx --provider auto --precision float16
    python -m benchmarks.gpu --dry-run          smoke test on the CPU; its figures mean nothing

Images come from --bundle, the guided step from --sd15 (default: from --bundle). torch, eager and compiled, runs the same denoiser in the
same precision, interleaved with ours. Utilisation is the step's FLOP/s over those of a large matrix product in torch on the same device.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

import costroute_rt
from benchmarks.backends import PSNR_TARGETS
from benchmarks.peer import NAME, Job, Pixels, TimedImage, count_steps, open_ours, psnr_db, with_steps
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
from costroute_rt import Bundle, Runtime, StepEvent
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.engines.store.store import Store

PROMPTS = ("a red house by a lake at sunset, snowy mountains behind", "a starry night")
STEPS, SEED = (1, 4, 20, 30), 7
OURS, EAGER, COMPILED = "ours", "torch eager", "torch.compile"
DOWNLOAD_TARGET, OUTSIDE_TARGET, SPEEDUP_TARGET = Target(high=0), Target(high=2.0), Target(low=1.3)
MATRIX, DRY_MATRIX = 8192, 512
TIMED_STEPS = 8


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("gpu", __doc__ or "")
    parser.add_argument("--backend", default="onnxruntime", metavar="NAME", help="backend to run (default: %(default)s)")
    parser.add_argument("--provider", default="cuda", metavar="NAME", help="its provider (default: %(default)s)")
    parser.add_argument("--precision", default="float16", metavar="NAME", help="precision of engines and torch (default: %(default)s)")
    parser.add_argument("--sd15", metavar="FOLDER", help="bundle whose base denoiser is compared with torch")
    parser.add_argument("--dry-run", action="store_true", help="run on the CPU in float32, with few repeats and no targets")
    args = parser.parse_args(argv)
    if args.dry_run:
        args.provider, args.precision, args.quick = "cpu", "float32", True
    return run_benchmark("gpu", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    bundle = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
    psnr_targets = {"PSNR": PSNR_TARGETS.get(args.precision, Target())}
    outcomes = [run_scenario(make_scenario(args, "same image as on the CPU", psnr_targets), partial(compare_with_cpu, bundle, args))]
    steps = STEPS[:2] if args.quick else STEPS
    with with_steps(bundle, "base", (*steps, TIMED_STEPS)) as root:
        engine_options = {"backend": args.backend, "provider": args.provider, "precision": args.precision}
        targets = {"device-to-host copies": DOWNLOAD_TARGET, "outside engines": OUTSIDE_TARGET}
        outcomes.append(run_scenario(make_scenario(args, "denoising loop", targets), partial(measure_loop, root, args, engine_options)))
        for count in steps:
            outcomes.append(
                run_scenario(make_scenario(args, count_steps(count), {}), partial(measure_image, root, args, engine_options, count))
            )
    return outcomes + compare_with_torch(Bundle.open(args.sd15) if args.sd15 else bundle, args)


def make_scenario(args: argparse.Namespace, name: str, targets: dict[str, Target]) -> Scenario:
    """A scenario on the GPU; a dry run has no targets."""
    gpu, driver = device.gpu()
    settings = {name: getattr(args, name) for name in ("backend", "provider", "precision", "dry_run")} | {"gpu": gpu, "driver": driver}
    warm_up, repeats = (1, 2) if args.quick else (5, 30)
    return Scenario(name=name, settings=settings, warm_up=warm_up, repeats=repeats, targets={} if args.dry_run else targets)


def compare_with_cpu(bundle: Bundle, args: argparse.Namespace, scenario: Scenario) -> Measurement:
    """Lowest PSNR between images from the GPU and from the CPU."""
    gpu_options = {"backend": args.backend, "provider": args.provider, "precision": args.precision}
    cpu_options = {"backend": "onnxruntime", "provider": "cpu"}
    gpu_images, cpu_images = (generate_images(bundle, args, options) for options in (gpu_options, cpu_options))
    return Measurement(figures=[Figure(name="PSNR", value=min(map(psnr_db, gpu_images, cpu_images)), unit="dB")])


def generate_images(bundle: Bundle, args: argparse.Namespace, engine_options: dict[str, Any]) -> list[Pixels]:
    with with_steps(bundle, "base", (TIMED_STEPS,)) as root, Runtime.open(root, home=args.home, build=True, **engine_options) as runtime:
        return [runtime.generate(prompt, seed=SEED, candidate=NAME.format(TIMED_STEPS)).pixels[0] for prompt in PROMPTS]


def measure_loop(root: Any, args: argparse.Namespace, engine_options: dict[str, Any], scenario: Scenario) -> Measurement:
    """Copies between host and device from the first step to the last, and the time outside engine calls."""
    with Runtime.open(root, home=args.home, build=True, **engine_options) as runtime:
        engine = runtime._resources.engines.get(f"{runtime.family}/base/guided_step")
        transfers = count_transfers(engine)
        counts = []
        for event in runtime.stream(PROMPTS[0], seed=SEED, candidate=NAME.format(TIMED_STEPS)):
            if isinstance(event, StepEvent):
                counts.append(Counter(transfers))
        between = counts[-1] - counts[0]
        images = time_images(runtime, TIMED_STEPS, scenario)
    figures = [
        Figure(name="device-to-host copies", value=between["to_host"], unit="count"),
        Figure(name="host-to-device copies per step", value=between["to_device"] / (TIMED_STEPS - 1), unit="count"),
        Figure(name="bytes to device per step", value=between["bytes"] / (TIMED_STEPS - 1), unit="bytes"),
        median_figure("outside engines", [image.stages["outside the stages"] for image in images], "ms"),
    ]
    return Measurement(figures=figures)


def count_transfers(engine: Any) -> Counter[str]:
    """Counts calls of `to_host` and `to_device` from now on, and the bytes that `to_device` copies."""
    transfers: Counter[str] = Counter()
    to_host, to_device = engine.to_host, engine.to_device

    def counting_to_host(value: Any) -> Any:
        transfers["to_host"] += 1
        return to_host(value)

    def counting_to_device(array: Any) -> Any:
        transfers["to_device"] += 1
        transfers["bytes"] += array.nbytes
        return to_device(array)

    engine.to_host, engine.to_device = counting_to_host, counting_to_device
    return transfers


def measure_image(root: Any, args: argparse.Namespace, engine_options: dict[str, Any], count: int, scenario: Scenario) -> Measurement:
    """Milliseconds for an image, from the prompt to its pixels."""
    with Runtime.open(root, home=args.home, build=True, **engine_options) as runtime:
        images = time_images(runtime, count, scenario)
    stages = [median_figure(name, [image.stages[name] for image in images], "ms") for name in ("denoise", "decode")]
    return Measurement(figures=[median_figure("total", [image.total_ms for image in images], "ms"), *stages])


def time_images(runtime: Runtime, count: int, scenario: Scenario) -> list[TimedImage]:
    """Generates the same image with `count` steps again and again; leaves out the warm-up."""
    ours, job = open_ours(runtime), Job(prompt=PROMPTS[0], seed=SEED, num_inference_steps=count, guidance_scale=3.0)
    return [ours(job) for _ in range(scenario.warm_up + scenario.repeats)][scenario.warm_up :]


def compare_with_torch(bundle: Bundle, args: argparse.Namespace) -> list[Outcome]:
    """One guided step of the base denoiser, interleaved with torch's."""
    first = make_scenario(args, f"{OURS}, guided step", {"speedup": SPEEDUP_TARGET})
    with ExitStack() as stack:
        openers: dict[str, Callable[[], Callable[[], float]]] = {OURS: partial(open_step, bundle, args, stack)}
        openers |= {name: partial(open_torch, bundle, args, compiled=name == COMPILED) for name in (EAGER, COMPILED)}
        calls = {name: defer_failure(opener) for name, opener in openers.items()}
        log(f"{first.warm_up} + {first.repeats} interleaved calls of {', '.join(calls)}")
        times = run_interleaved(calls, warm_up=first.warm_up, repeats=first.repeats, pause_s=0.0 if args.dry_run else PAUSE_S)

    def summarise(name: str, scenario: Scenario) -> Measurement:
        times_ms, eager_ms = times[name], times[EAGER]
        if isinstance(times_ms, Exception):
            raise times_ms
        figures = [median_figure("guided step", times_ms, "ms")]
        if name != EAGER and not isinstance(eager_ms, Exception):
            figures.append(ratio_figure("speedup", eager_ms, times_ms))
        return Measurement(figures=figures)

    outcomes = [run_scenario(first, partial(summarise, OURS))]
    outcomes += [run_scenario(make_scenario(args, f"{name}, guided step", {}), partial(summarise, name)) for name in (EAGER, COMPILED)]
    ours_ms = times[OURS]
    if not isinstance(ours_ms, Exception):
        scenario = make_scenario(args, "utilisation", {})
        outcomes.append(run_scenario(scenario, partial(measure_utilisation, bundle, args, float(np.median(ours_ms)))))
    return outcomes


def open_step(bundle: Bundle, args: argparse.Namespace, stack: ExitStack) -> Callable[[], float]:
    """Returns a function that runs our guided step and returns the milliseconds until its latent is in host memory."""
    setup, store = Setup.of(args.backend, args.provider, args.precision), Store.open(args.home)
    name = f"{bundle.family}/base/guided_step"
    log(f"building {name}")
    build_engines(bundle, store, [name], setup, measure=False)
    engine = stack.enter_context(open_engine(bundle, store, name, setup))
    arrays = example_feeds(bundle, bundle.graph_path("base", "guided_step"))
    feeds = {name: engine.to_device(array) for name, array in arrays.items()}

    def call() -> float:
        started = time.perf_counter()
        engine.to_host(engine.run(feeds)["next_latent"])
        return (time.perf_counter() - started) * 1000

    return call


def open_torch(bundle: Bundle, args: argparse.Namespace, *, compiled: bool) -> Callable[[], float]:
    """The same for torch: both passes as one batch, guidance and one linear update, until the latent is in host memory."""
    import torch

    unet, feeds = torch_denoiser(bundle, args)
    run = torch.compile(unet) if compiled else unet

    def call() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            negative, positive = run(**feeds).sample.chunk(2)
            (0.9 * feeds["sample"][:1] + 0.1 * (negative + 3.0 * (positive - negative))).float().cpu()
        return (time.perf_counter() - started) * 1000

    return call


def torch_denoiser(bundle: Bundle, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The bundle's denoiser as diffusers loads it, and inputs at the bundle's default size for two passes."""
    opt_out_hub()
    import torch
    from diffusers import UNet2DConditionModel

    where = {"device": "cpu" if args.dry_run else "cuda", "dtype": getattr(torch, args.precision)}
    unet = UNet2DConditionModel.from_pretrained(str(bundle.root / "unet"), torch_dtype=where["dtype"], local_files_only=True)
    image, config = bundle.image, unet.config
    side = image.vae_scale_factor
    sample = torch.randn(2, config.in_channels, image.height // side, image.width // side, **where)
    states = torch.randn(2, bundle.tokenizers["tokenizer"].max_length, config.cross_attention_dim, **where)
    return unet.eval().to(where["device"]), {"sample": sample, "timestep": 500, "encoder_hidden_states": states}


def measure_utilisation(bundle: Bundle, args: argparse.Namespace, step_ms: float, scenario: Scenario) -> Measurement:
    """FLOP/s of a guided step, and of a large matrix product on this device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    unet, feeds = torch_denoiser(bundle, args)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        unet(**feeds)
    size = DRY_MATRIX if args.dry_run else MATRIX
    matrix = torch.randn(size, size, device=feeds["sample"].device, dtype=feeds["sample"].dtype)
    times = []
    for _ in range(scenario.warm_up + scenario.repeats):
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        times.append(time.perf_counter() - started)
    peak, achieved = 2 * size**3 / float(np.median(times[scenario.warm_up :])) / 1e12, counter.get_total_flops() / step_ms / 1e9
    return Measurement(
        figures=[
            Figure(name="achieved", value=achieved, unit="TFLOP/s"),
            Figure(name="matrix product", value=peak, unit="TFLOP/s"),
            Figure(name="share of the matrix product", value=achieved / peak, unit="share"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
