"""Time of one image, in total and by stage, and what the runtime adds to its engines.

One guided denoiser at 1, 2, 4, 8 and 16 steps, from the prompt to uint8 pixels in host memory. The overhead is the time
beyond that of the same engines in a plain loop with every tensor bound once, in the same process and in turn, on each backend that works
here. With --peers, diffusers' StableDiffusionPipeline (torch, float32, from the bundle's directory) and optimum's
ORTStableDiffusionPipeline (from an export kept in the temporary directory) run interleaved with ours, with the same weights, steps, noise
and number of threads; the images are compared.

    python -m benchmarks.latency
    python -m benchmarks.latency --peers
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import costroute_rt
from benchmarks import overhead
from benchmarks.backends import VARIANTS, is_supported
from benchmarks.peer import Job, Peer, TimedImage, count_steps, open_diffusers, open_optimum, open_ours, psnr_db, with_steps
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
from costroute_rt.engines.machine.device import default_threads

STEPS, QUICK_STEPS = (1, 2, 4, 8, 16), (1, 8)
OURS = "costroute-rt"
PROMPT, SEED = "a red house by a lake at sunset, snowy mountains behind", 7
SPEED_TARGETS = {("diffusers", 8): Target(low=2.5), ("optimum", 8): Target(low=1.15)}
"""How many times our time a peer takes, by its name and number of steps."""
SAME_TARGET = Target(low=40.0)
"""Peak signal-to-noise ratio from which two images count as the same: differences of about two levels of 255."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("latency", __doc__ or "")
    parser.add_argument("--peers", action="store_true", help="also run diffusers and optimum (needs the export extra)")
    parser.add_argument("--only-overhead", action="store_true", help="measure only what the runtime adds to its engines")
    parser.add_argument("--denoiser", default="base", metavar="NAME", help="denoiser to run, with guidance (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("latency", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per program and number of steps."""
    bundle, threads = Bundle.open(args.bundle or costroute_rt.shipped_bundle()), default_threads()
    steps = QUICK_STEPS if args.quick else STEPS
    outcomes = []
    with with_steps(bundle, args.denoiser, steps) as root, Runtime.open(root, home=args.home, threads=threads, build=True) as runtime:
        openers: dict[str, Callable[[], Peer]] = {OURS: lambda: open_ours(runtime)}
        if args.peers:
            openers |= {"diffusers": lambda: open_diffusers(bundle, threads), "optimum": lambda: open_optimum(bundle, threads)}
        peers = {name: open_peer(name, opener) for name, opener in openers.items()}
        guidance_scale = runtime.candidates[0].guidance_scale
        for count in () if args.only_overhead else steps:
            job = Job(prompt=PROMPT, seed=SEED, num_inference_steps=count, guidance_scale=guidance_scale)
            scenarios = {name: make_scenario(name, job, args.denoiser, threads, quick=args.quick) for name in peers}
            outcomes += measure(scenarios, peers, job)
        for variant in filter(is_supported, VARIANTS):
            outcomes += measure_overhead(variant, root, args, threads, guidance_scale)
    return outcomes


def measure_overhead(variant: str, root: Path, args: argparse.Namespace, threads: int, guidance_scale: float) -> list[Outcome]:
    """One scenario per number of steps, with the engines of one backend and precision."""
    backend, precision = variant.split()
    warm_up, repeats = (1, 2) if args.quick else (3, 40)

    def measure_steps(scenario: Scenario) -> Measurement:
        steps = scenario.settings["num_inference_steps"]
        job = Job(prompt=PROMPT, seed=SEED, num_inference_steps=steps, guidance_scale=guidance_scale)
        with Runtime.open(
            root, home=args.home, backend=backend, precision=precision, threads=threads, build=True, preload=False
        ) as runtime:
            return overhead.measure(runtime, job, scenario)

    outcomes = []
    for count in QUICK_STEPS:
        settings = {
            "backend": backend,
            "precision": precision,
            "threads": threads,
            "prompt": PROMPT,
            "denoiser": args.denoiser,
            "num_inference_steps": count,
        }
        name = f"overhead, {variant}, {count_steps(count)}"
        scenario = Scenario(name=name, settings=settings, warm_up=warm_up, repeats=repeats, targets=overhead.TARGETS)
        outcomes.append(run_scenario(scenario, measure_steps))
    return outcomes


def open_peer(name: str, opener: Callable[[], Peer]) -> Peer:
    """The program, ready to run; one that cannot be opened fails in each of its scenarios."""
    log(f"opening {name}")
    return defer_failure(opener)


def make_scenario(name: str, job: Job, denoiser: str, threads: int, *, quick: bool) -> Scenario:
    """The scenario of one program at one number of steps."""
    count = job.num_inference_steps
    targets: dict[str, Target] = {}
    if name != OURS:
        slower = SPEED_TARGETS.get((name, count))
        targets = {"PSNR to ours": SAME_TARGET, **({"time relative to ours": slower} if slower is not None else {})}
    settings = {
        "program": name,
        "prompt": job.prompt,
        "denoiser": denoiser,
        "num_inference_steps": count,
        "guidance_scale": job.guidance_scale,
        "threads": threads,
    }
    warm_up, repeats = (1, 2) if quick else (2, 15)
    return Scenario(name=f"{name}, {count_steps(count)}", settings=settings, warm_up=warm_up, repeats=repeats, targets=targets)


def measure(scenarios: Mapping[str, Scenario], peers: Mapping[str, Peer], job: Job) -> list[Outcome]:
    """Runs all programs interleaved at one number of steps."""
    first = scenarios[OURS]
    log(f"{count_steps(job.num_inference_steps)}: {first.warm_up} + {first.repeats} interleaved calls of {', '.join(scenarios)}")
    calls = {name: partial(peer, job) for name, peer in peers.items()}
    images = run_interleaved(calls, warm_up=first.warm_up, repeats=first.repeats, pause_s=PAUSE_S)
    return [run_scenario(scenario, partial(summarise, images, name)) for name, scenario in scenarios.items()]


def summarise(images: Mapping[str, list[TimedImage] | Exception], name: str, scenario: Scenario) -> Measurement:
    """Time of one program, ours by stage, a peer's relative to ours and with the PSNR of the two images."""
    timed, ours = images[name], images[OURS]
    if isinstance(timed, Exception):
        raise timed
    figures = [median_figure("total", [image.total_ms for image in timed], "ms")]
    if name == OURS:
        figures += [median_figure(stage, [image.stages[stage] for image in timed], "ms") for stage in timed[0].stages]
    elif not isinstance(ours, Exception):
        figures.append(ratio_figure("time relative to ours", [image.total_ms for image in timed], [image.total_ms for image in ours]))
        figures.append(Figure(name="PSNR to ours", value=psnr_db(timed[0].pixels, ours[0].pixels), unit="dB"))
    return Measurement(figures=figures, notes={"threads": str(scenario.settings["threads"])})


if __name__ == "__main__":
    sys.exit(main())
