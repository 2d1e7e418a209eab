"""How long one picture takes, and where its milliseconds go.

One guided denoiser at 1, 2, 4, 8 and 16 steps, from the prompt to uint8 pixels in host memory. With --peers the same weights, steps, noise
and number of threads also run in diffusers' StableDiffusionPipeline (torch, float32, from the bundle's directory) and in optimum's
ORTStableDiffusionPipeline (from an export kept in the temporary directory), in turns within one run, and the pictures are compared.

    python -m benchmarks.latency
    python -m benchmarks.latency --peers
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

import costroute_rt
from benchmarks.peer import Job, Peer, Pixels, Shot, open_diffusers, open_optimum, open_ours, with_steps
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measured, Outcome, Scenario, Target, attempt, run_in_turns, say, spread
from costroute_rt import Bundle, Runtime
from costroute_rt.engines.machine.device import default_threads

STEPS, QUICK_STEPS = (1, 2, 4, 8, 16), (1, 8)
OURS = "costroute-rt"
PROMPT, SEED = "a red house by a lake at sunset, snowy mountains behind", 7
OUTSIDE_TARGET = Target(high=3.0)
SPEED_TARGETS = {("diffusers", 8): Target(low=2.5), ("optimum", 8): Target(low=1.15)}
"""How many times as long a peer takes, by its name and number of steps."""
SAME_TARGET = Target(low=40.0)
"""Peak signal-to-noise ratio from which two pictures count as the same: differences of about two levels of 255."""
PAUSE_S = 0.05
"""Longer than the threads of torch and ONNX Runtime wait busily for more work."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("latency", __doc__ or "")
    parser.add_argument("--peers", action="store_true", help="also run diffusers and optimum (needs the export extra)")
    parser.add_argument("--denoiser", default="base", metavar="NAME", help="component to run, with guidance (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("latency", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """All programs, number of steps after number of steps."""
    bundle, threads = Bundle.open(args.bundle or costroute_rt.shipped_bundle()), default_threads()
    steps = QUICK_STEPS if args.quick else STEPS
    outcomes = []
    with with_steps(bundle, args.denoiser, steps) as root, Runtime.open(root, home=args.home, threads=threads, build=True) as runtime:
        openers: dict[str, Callable[[], Peer]] = {OURS: lambda: open_ours(runtime)}
        if args.peers:
            openers |= {"diffusers": lambda: open_diffusers(bundle, threads), "optimum": lambda: open_optimum(bundle, threads)}
        peers = {name: open_or_keep_error(name, opener) for name, opener in openers.items()}
        guidance_scale = runtime.candidates[0].guidance_scale
        for count in steps:
            job = Job(prompt=PROMPT, seed=SEED, num_inference_steps=count, guidance_scale=guidance_scale)
            plans = {name: plan(name, job, args.denoiser, threads, quick=args.quick) for name in peers}
            outcomes += measure(plans, peers, job)
    return outcomes


def open_or_keep_error(name: str, opener: Callable[[], Peer]) -> Peer:
    """The program, ready; where it cannot be opened, each of its scenarios fails with the reason."""
    say(f"opening {name}")
    try:
        return opener()
    except Exception as error:
        reason = error

        def fail(job: Job) -> Shot:
            raise reason

        return fail


def plan(name: str, job: Job, denoiser: str, threads: int, *, quick: bool) -> Scenario:
    """One program at one number of steps."""
    count = job.num_inference_steps
    targets = {"outside engines": OUTSIDE_TARGET}
    if name != OURS:
        slower = SPEED_TARGETS.get((name, count))
        targets = {"like ours": SAME_TARGET, **({"times ours": slower} if slower is not None else {})}
    settings = {
        "program": name,
        "prompt": job.prompt,
        "denoiser": denoiser,
        "num_inference_steps": count,
        "guidance_scale": job.guidance_scale,
        "threads": threads,
    }
    warm_up, repeats = (1, 2) if quick else (2, 15)
    return Scenario(name=f"{name}, {count} steps", settings=settings, warm_up=warm_up, repeats=repeats, targets=targets)


def measure(plans: Mapping[str, Scenario], peers: Mapping[str, Peer], job: Job) -> list[Outcome]:
    """One number of steps, the programs taking turns."""
    first = plans[OURS]
    say(f"{job.num_inference_steps} steps: {first.warm_up} + {first.repeats} turns of {', '.join(plans)}")
    calls = {name: partial(peer, job) for name, peer in peers.items()}
    shots = run_in_turns(calls, warm_up=first.warm_up, repeats=first.repeats, pause_s=PAUSE_S)
    return [attempt(scenario, partial(describe, shots, name)) for name, scenario in plans.items()]


def describe(shots: Mapping[str, list[Shot] | Exception], name: str, scenario: Scenario) -> Measured:
    """The figures of one program, beside ours."""
    own, ours = shots[name], shots[OURS]
    if isinstance(own, Exception):
        raise own
    figures = [spread("total", [shot.total_ms for shot in own], "ms")]
    if name == OURS:
        stages = list(own[0].stages)
        figures += [spread(stage, [shot.stages[stage] for shot in own], "ms") for stage in stages]
    elif not isinstance(ours, Exception):
        figures += [compare_times(own, ours), compare_pictures(own[0].pixels, ours[0].pixels)]
    return Measured(figures=figures, notes={"threads": str(scenario.settings["threads"])})


def compare_times(own: Sequence[Shot], ours: Sequence[Shot]) -> Figure:
    """How many times as long as ours: ratio of medians, and quartiles of the ratios turn by turn."""
    ratios = spread("times ours", [a.total_ms / b.total_ms for a, b in zip(own, ours, strict=True)], "ratio")
    value = float(np.median([shot.total_ms for shot in own]) / np.median([shot.total_ms for shot in ours]))
    return Figure(name=ratios.name, value=value, unit=ratios.unit, low=ratios.low, high=ratios.high)


def compare_pictures(one: Pixels, other: Pixels) -> Figure:
    """Peak signal-to-noise ratio in dB; 99 where they are equal."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return Figure(name="like ours", value=float(min(99.0, 10 * np.log10(255**2 / max(error, 1e-9)))), unit="dB")


if __name__ == "__main__":
    sys.exit(main())
