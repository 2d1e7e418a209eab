"""What an NVIDIA GPU gives: the same picture as the CPU, no copies to the host between steps, and time beside torch on the same weights.

    python -m benchmarks.random_sd15 FOLDER
    python -m benchmarks.gpu --sd15 FOLDER --precision float16 --json >> gpu.jsonl
    python -m benchmarks.gpu --backend tensorrt-rtx --provider auto --precision float16
    python -m benchmarks.gpu --dry-run          the same script on a CPU: that it works, not what it finds

Pictures come from --bundle, one guided step from --sd15 (else from --bundle). torch, eager and compiled, runs the same denoiser in the same
precision, in turns with ours; how much of the device's power is used is told by the largest matrix products that torch manages on it.
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
from benchmarks.backends import compare_speed, keep_error
from benchmarks.latency import compare_pictures
from benchmarks.peer import NAME, Pixels, open_ours, with_steps
from benchmarks.peer import Job as Request
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measured, Outcome, Scenario, Target, attempt, run_in_turns, say, spread
from costroute_rt import Bundle, Runtime, StepEvent
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.machine import device
from costroute_rt.engines.store.store import Store

PROMPTS = ("a red house by a lake at sunset, snowy mountains behind", "a starry night")
STEPS, SEED = (1, 4, 20, 30), 7
OURS, EAGER, COMPILED = "ours", "torch eager", "torch.compile"
LIKENESS_TARGETS = {"float32": Target(low=40.0), "float16": Target(low=25.0), "bfloat16": Target(low=25.0)}
DOWNLOADS_TARGET, OUTSIDE_TARGET, FASTER_TARGET = Target(high=0), Target(high=2.0), Target(low=1.3)
MATRIX, DRY_MATRIX = 8192, 512
TIMED_STEPS = 8


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("gpu", __doc__ or "")
    parser.add_argument("--backend", default="onnxruntime", metavar="NAME", help="backend to run (default: %(default)s)")
    parser.add_argument("--provider", default="cuda", metavar="NAME", help="its provider (default: %(default)s)")
    parser.add_argument("--precision", default="float16", metavar="NAME", help="what engines and torch compute in (default: %(default)s)")
    parser.add_argument("--sd15", metavar="FOLDER", help="bundle whose base denoiser is compared with torch")
    parser.add_argument("--dry-run", action="store_true", help="run on the CPU in float32, with few repeats and no targets")
    args = parser.parse_args(argv)
    if args.dry_run:
        args.provider, args.precision, args.quick = "cpu", "float32", True
    return run_benchmark("gpu", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    bundle = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
    outcomes = [
        attempt(plan(args, "same picture", {"likeness": LIKENESS_TARGETS.get(args.precision, Target())}), partial(same, bundle, args))
    ]
    steps = STEPS[:2] if args.quick else STEPS
    with with_steps(bundle, "base", (*steps, TIMED_STEPS)) as root:
        how = {"backend": args.backend, "provider": args.provider, "precision": args.precision}
        targets = {"downloads": DOWNLOADS_TARGET, "outside engines": OUTSIDE_TARGET}
        outcomes.append(attempt(plan(args, "the loop", targets), partial(loop, root, args, how)))
        for count in steps:
            outcomes.append(attempt(plan(args, f"{count} steps", {}), partial(picture, root, args, how, count)))
    return outcomes + beside_torch(Bundle.open(args.sd15) if args.sd15 else bundle, args)


def plan(args: argparse.Namespace, name: str, targets: dict[str, Target]) -> Scenario:
    """A scenario on the device; a dry run has no targets."""
    gpu, driver = device.gpu()
    settings = {name: getattr(args, name) for name in ("backend", "provider", "precision", "dry_run")} | {"gpu": gpu, "driver": driver}
    warm_up, repeats = (1, 2) if args.quick else (5, 30)
    return Scenario(name=name, settings=settings, warm_up=warm_up, repeats=repeats, targets={} if args.dry_run else targets)


def same(bundle: Bundle, args: argparse.Namespace, scenario: Scenario) -> Measured:
    """The least likeness of pictures made on the device and on the CPU."""
    ways = (
        {"backend": args.backend, "provider": args.provider, "precision": args.precision},
        {"backend": "onnxruntime", "provider": "cpu"},
    )
    ours, theirs = (draw(bundle, args, way) for way in ways)
    likeness = min(compare_pictures(*pair).value for pair in zip(ours, theirs, strict=True))
    return Measured(figures=[Figure(name="likeness", value=likeness, unit="dB")])


def draw(bundle: Bundle, args: argparse.Namespace, how: dict[str, Any]) -> list[Pixels]:
    with with_steps(bundle, "base", (TIMED_STEPS,)) as root, Runtime.open(root, home=args.home, build=True, **how) as runtime:
        return [runtime.generate(prompt, seed=SEED, candidate=NAME.format(TIMED_STEPS)).pixels[0] for prompt in PROMPTS]


def loop(root: Any, args: argparse.Namespace, how: dict[str, Any], scenario: Scenario) -> Measured:
    """Copies between host and device from the first step to the last, and the time that is spent outside engines."""
    with Runtime.open(root, home=args.home, build=True, **how) as runtime:
        engine = runtime._parts.engines.get(f"{runtime.family}/base/guided_step")
        moved = count_transfers(engine)
        seen = []
        for event in runtime.stream(PROMPTS[0], seed=SEED, candidate=NAME.format(TIMED_STEPS)):
            if isinstance(event, StepEvent):
                seen.append(Counter(moved))
        between = seen[-1] - seen[0]
        ours = open_ours(runtime)
        shots = [ours(job(TIMED_STEPS)) for _ in range(scenario.warm_up + scenario.repeats)][scenario.warm_up :]
    figures = [
        Figure(name="downloads", value=between["to_host"], unit="count"),
        Figure(name="uploads a step", value=between["to_device"] / (TIMED_STEPS - 1), unit="count"),
        Figure(name="bytes up a step", value=between["bytes"] / (TIMED_STEPS - 1), unit="bytes"),
        spread("outside engines", [shot.stages["outside engines"] for shot in shots], "ms"),
    ]
    return Measured(figures=figures)


def count_transfers(engine: Any) -> Counter[str]:
    """Counts calls of `to_host` and `to_device` from now on, and the bytes of the latter."""
    moved: Counter[str] = Counter()
    to_host, to_device = engine.to_host, engine.to_device

    def counting_to_host(value: Any) -> Any:
        moved["to_host"] += 1
        return to_host(value)

    def counting_to_device(array: Any) -> Any:
        moved["to_device"] += 1
        moved["bytes"] += array.nbytes
        return to_device(array)

    engine.to_host, engine.to_device = counting_to_host, counting_to_device
    return moved


def picture(root: Any, args: argparse.Namespace, how: dict[str, Any], count: int, scenario: Scenario) -> Measured:
    """Milliseconds for a picture, from the prompt to its pixels."""
    with Runtime.open(root, home=args.home, build=True, **how) as runtime:
        ours = open_ours(runtime)
        shots = [ours(job(count)) for _ in range(scenario.warm_up + scenario.repeats)][scenario.warm_up :]
    stages = [spread(name, [shot.stages[name] for shot in shots], "ms") for name in ("denoise", "decode")]
    return Measured(figures=[spread("total", [shot.total_ms for shot in shots], "ms"), *stages])


def job(count: int) -> Request:
    return Request(prompt=PROMPTS[0], seed=SEED, num_inference_steps=count, guidance_scale=3.0)


def beside_torch(bundle: Bundle, args: argparse.Namespace) -> list[Outcome]:
    """One guided step of the base denoiser, ours and torch's in turns."""
    first = plan(args, f"{OURS}, guided step", {"times as fast": FASTER_TARGET})
    with ExitStack() as stack:
        openers: dict[str, Callable[[], Callable[[], float]]] = {OURS: partial(open_step, bundle, args, stack)}
        openers |= {name: partial(open_torch, bundle, args, compiled=name == COMPILED) for name in (EAGER, COMPILED)}
        calls = {name: keep_error(opener) for name, opener in openers.items()}
        say(f"{first.warm_up} + {first.repeats} turns of {', '.join(calls)}")
        times = run_in_turns(calls, warm_up=first.warm_up, repeats=first.repeats, pause_s=0.0 if args.dry_run else 0.05)

    def describe(name: str, scenario: Scenario) -> Measured:
        own, eager = times[name], times[EAGER]
        if isinstance(own, Exception):
            raise own
        figures = [spread("guided step", own, "ms")]
        if name != EAGER and not isinstance(eager, Exception):
            figures.append(compare_speed(eager, own))
        return Measured(figures=figures)

    outcomes = [attempt(first, partial(describe, OURS))]
    outcomes += [attempt(plan(args, f"{name}, guided step", {}), partial(describe, name)) for name in (EAGER, COMPILED)]
    own = times[OURS]
    if not isinstance(own, Exception):
        outcomes.append(attempt(plan(args, "share of the device", {}), partial(share, bundle, args, float(np.median(own)))))
    return outcomes


def open_step(bundle: Bundle, args: argparse.Namespace, stack: ExitStack) -> Callable[[], float]:
    """A call of our guided step; gives milliseconds until its latent could be read."""
    setup, store = Setup.of(args.backend, args.provider, args.precision), Store.open(args.home)
    name = f"{bundle.family}/base/guided_step"
    say(f"building {name}")
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
    """The same step in torch: both passes as one batch, guidance, one linear rule; to the latent on the host."""
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
    """The bundle's denoiser as diffusers loads it, and inputs of the bundle's usual size for two passes."""
    import torch
    from diffusers import UNet2DConditionModel

    where = {"device": "cpu" if args.dry_run else "cuda", "dtype": getattr(torch, args.precision)}
    unet = UNet2DConditionModel.from_pretrained(str(bundle.root / "unet"), torch_dtype=where["dtype"], local_files_only=True)
    image, config = bundle.image, unet.config
    side = image.vae_scale_factor
    sample = torch.randn(2, config.in_channels, image.height // side, image.width // side, **where)
    states = torch.randn(2, bundle.tokenizer.max_length, config.cross_attention_dim, **where)
    return unet.eval().to(where["device"]), {"sample": sample, "timestep": 500, "encoder_hidden_states": states}


def share(bundle: Bundle, args: argparse.Namespace, step_ms: float, scenario: Scenario) -> Measured:
    """Arithmetic of a guided step a second, beside what large matrix products reach on this device."""
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
    ceiling, reached = 2 * size**3 / float(np.median(times[scenario.warm_up :])) / 1e12, counter.get_total_flops() / step_ms / 1e9
    return Measured(
        figures=[
            Figure(name="reached", value=reached, unit="TFLOP/s"),
            Figure(name="ceiling", value=ceiling, unit="TFLOP/s"),
            Figure(name="of the ceiling", value=reached / ceiling, unit="share"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
