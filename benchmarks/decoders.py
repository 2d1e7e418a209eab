"""What a tiny decoder saves, and what it loses: every candidate beside the same one with another decoder, from the same latents.

Times are of whole images, interleaved, from the prompt to uint8 pixels in host memory. Images are compared over held-out captions, by PSNR
and by recall of stated things (the scorer saw neither decoder's images when it was trained); intervals are 95 % over captions.

    python -m benchmarks.decoders
    python -m benchmarks.decoders --candidates postcard-turbo@2 postcard-base@8
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

import costroute_rt
from benchmarks.caption import Prompt, held_out_captions
from benchmarks.judge import Judge
from benchmarks.peer import TimedImage, psnr_db
from benchmarks.quality import REPORTED
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import (
    PAUSE_S,
    Figure,
    Measurement,
    Outcome,
    Scenario,
    Target,
    mean_figure,
    median_figure,
    ratio_figure,
    run_interleaved,
    run_scenario,
    with_progress,
)
from costroute_rt import Bundle, Candidate, Runtime

TIMED = "a red house by a lake at sunset, snowy mountains behind"
SHARE = "time relative to the full decoder"
TARGETS = {2: Target(high=0.5)}
"""Largest share of the time, by the number of steps without guidance."""
WARM_UP, REPEATS, PER_BAND = 3, 40, 25
QUICK_REPEATS, QUICK_PER_BAND = 2, 1


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates that differ in their decoder alone."""

    full: str
    other: str
    num_inference_steps: int
    is_guided: bool


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("decoders", __doc__ or "")
    parser.add_argument("--candidates", nargs="+", metavar="NAME", help="candidates with the full decoder (default: all that have a pair)")
    args = parser.parse_args(argv)
    return run_benchmark("decoders", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per pair; builds missing engines."""
    repeats, per_band = (QUICK_REPEATS, QUICK_PER_BAND) if args.quick else (REPEATS, PER_BAND)
    bundle, captions = Bundle.open(args.bundle or costroute_rt.shipped_bundle()), held_out_captions(REPORTED, per_band)
    with Judge.open(bundle, args.home) as judge, Runtime.open(bundle.root, home=args.home, build=True) as runtime:
        pairs = [pair for pair in find_pairs(runtime.candidates) if not args.candidates or pair.full in args.candidates]
        if not pairs:
            raise ValueError(f"no two of the candidates of {bundle.family} differ in their decoder alone")
        return [run_scenario(make_scenario(pair, repeats), partial(measure, runtime, judge, captions, pair)) for pair in pairs]


def find_pairs(candidates: Iterable[Candidate]) -> list[Pair]:
    """Each candidate of the pool's first decoder, with every other one that differs in its decoder alone."""
    first: dict[tuple[object, ...], Candidate] = {}
    pairs = []
    for each in candidates:
        full = first.setdefault((each.denoiser, each.scheduler, each.num_inference_steps, each.guidance_scale), each)
        if full.decoder != each.decoder:
            pairs.append(Pair(full.name, each.name, each.num_inference_steps, each.is_guided))
    return pairs


def make_scenario(pair: Pair, repeats: int) -> Scenario:
    """The scenario of one pair."""
    target = None if pair.is_guided else TARGETS.get(pair.num_inference_steps)
    settings = {"candidate": pair.other, "full": pair.full, "prompt": TIMED, "captions": REPORTED}
    return Scenario(name=pair.other, settings=settings, warm_up=WARM_UP, repeats=repeats, targets={} if target is None else {SHARE: target})


def measure(runtime: Runtime, judge: Judge, captions: Sequence[Prompt], pair: Pair, scenario: Scenario) -> Measurement:
    """Times, then images, of both candidates."""
    calls = {name: partial(timed_image, runtime, name) for name in (pair.full, pair.other)}
    images = run_interleaved(calls, warm_up=scenario.warm_up, repeats=scenario.repeats, pause_s=PAUSE_S)
    return Measurement(figures=[*time_figures(images, pair), *image_figures(runtime, judge, captions, pair)])


def timed_image(runtime: Runtime, candidate: str) -> TimedImage:
    """One image of the timed prompt."""
    started = time.perf_counter()
    result = runtime.generate(TIMED, seed=7, candidate=candidate)
    total_ms = (time.perf_counter() - started) * 1000
    return TimedImage(pixels=result.pixels[0], total_ms=total_ms, stages={"decode": result.timings.decode_ms})


def time_figures(images: Mapping[str, list[TimedImage] | Exception], pair: Pair) -> list[Figure]:
    """Time of the whole image and of decoding, and the share that the other decoder takes."""
    timed: dict[str, list[TimedImage]] = {}
    for name, found in images.items():
        if isinstance(found, Exception):
            raise found
        timed[name] = found
    total = {name: [image.total_ms for image in each] for name, each in timed.items()}
    decode = {name: [image.stages["decode"] for image in each] for name, each in timed.items()}
    return [
        median_figure("total", total[pair.other], "ms"),
        median_figure("total with the full decoder", total[pair.full], "ms"),
        median_figure("decode", decode[pair.other], "ms"),
        median_figure("decode with the full decoder", decode[pair.full], "ms"),
        ratio_figure(SHARE, total[pair.other], total[pair.full]),
    ]


def image_figures(runtime: Runtime, judge: Judge, captions: Sequence[Prompt], pair: Pair) -> list[Figure]:
    """Likeness of the images of both, and the recall of stated things in each."""
    likeness, recall = [], {pair.full: list[float](), pair.other: list[float]()}
    for number, prompt in enumerate(with_progress(captions, pair.other)):
        pixels = {name: runtime.generate(prompt.text, seed=number, candidate=name).pixels[0] for name in recall}
        likeness.append(psnr_db(pixels[pair.other], pixels[pair.full]))
        for name, values in recall.items():
            values.append(judge.look(pixels[name], prompt.stated).recall)
    differences = np.subtract(recall[pair.other], recall[pair.full]).tolist()
    return [
        mean_figure("PSNR to the full decoder", likeness, "dB"),
        mean_figure("recall of stated things", recall[pair.other], "score"),
        mean_figure("recall, less that with the full decoder", differences, "score"),
    ]


if __name__ == "__main__":
    sys.exit(main())
