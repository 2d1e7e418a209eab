"""How much of what a prompt states is in the picture, for every candidate.

200 captions of scenes that no training run has seen (50 for each number of stated attributes), two seeds each, and 40 prompts as people
type them. The figure is the scorer's mean probability of what is stated; intervals are 95 % over prompts. Beside the candidates stand
the drawn scene itself (the ceiling), the drawn scene through the autoencoder and back, and another scene's drawing (the floor); these
three need skia-python. A contact sheet goes to DIR/quality.png.

    python -m benchmarks.quality
    python -m benchmarks.quality --candidates postcard-base@8 postcard-turbo@2 --attributes
    python -m benchmarks.quality --write-table quality.json     what the bundle's manifest holds as `quality`, on captions of their own
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import costroute_rt
from benchmarks.caption import BUCKETS, Prompt, held_out, human
from benchmarks.judge import Judge, Pixels
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measured, Outcome, Scenario, Target, attempt, counted, mean, say
from benchmarks.sheet import SheetRow, Tile, draw_sheet
from costroute_rt import Bundle, Runtime

REPORTED, ROUTING = "held-out-quality", "held-out-routing"
"""Names of the two sets of captions; training data has others."""
TARGETS = {"base@8": 0.97, "turbo@2": 0.95}
"""By the end of a candidate's name: least mean score over all captions."""
RECONSTRUCTION_TARGET = 0.99
PER_BUCKET, SEEDS, HUMANS = 50, 2, 40
QUICK_PER_BUCKET, QUICK_SEEDS, QUICK_HUMANS = 2, 1, 4
SHEET_PER_BUCKET, SHEET_HUMANS = 2, 6
Picture = Callable[[int, int], Pixels]
"""(number of the prompt, seed) -> uint8[height, width, 3]"""


@dataclass(slots=True)
class Study:
    """The prompts, and what is kept of each candidate's pictures."""

    captions: list[Prompt]
    typed: list[Prompt]
    seeds: int
    by_attribute: bool
    tiles: dict[str, dict[int, Tile]] = field(default_factory=dict)
    """By candidate and number of the prompt: the first picture, for prompts on the sheet."""
    scores: dict[str, list[float]] = field(default_factory=dict)
    """By candidate: each caption's mean over seeds."""

    @property
    def prompts(self) -> list[Prompt]:
        return self.captions + self.typed

    def on_sheet(self) -> list[int]:
        """Numbers of the prompts on the contact sheet: the first of each bucket, and typed ones from across their list."""
        chosen: list[int] = []
        for bucket in BUCKETS:
            chosen += [number for number, prompt in enumerate(self.captions) if prompt.bucket == bucket][:SHEET_PER_BUCKET]
        step = max(1, len(self.typed) // SHEET_HUMANS)
        return chosen + [len(self.captions) + index for index in range(step // 2, len(self.typed), step)[:SHEET_HUMANS]]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return run_benchmark("quality", args, argv, partial(run, args))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("quality", __doc__ or "")
    parser.add_argument("--candidates", nargs="+", metavar="NAME", help="only these (default: the whole pool)")
    parser.add_argument("--attributes", action="store_true", help="also say which attributes are found and which are not")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), metavar="DIR", help="for the contact sheet (default: %(default)s)"
    )
    parser.add_argument(
        "--write-table", type=Path, metavar="FILE", help="measure on the captions kept for routing, and write the means there"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> list[Outcome]:
    """Measures everything; the engines are built where they are missing."""
    per_bucket, seeds = (QUICK_PER_BUCKET, QUICK_SEEDS) if args.quick else (PER_BUCKET, SEEDS)
    dataset = ROUTING if args.write_table else REPORTED
    typed = [] if args.write_table else human(QUICK_HUMANS if args.quick else HUMANS)
    study = Study(held_out(dataset, per_bucket), typed, seeds, args.attributes)
    bundle = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
    with Judge.open(bundle, args.home) as judge, Runtime.open(bundle.root, home=args.home, build=True) as runtime:
        names = args.candidates or [candidate.name for candidate in runtime.candidates]
        claims = not args.write_table
        outcomes = [
            attempt(scenario, lambda at: measure_candidate(study, judge, runtime, at)) for scenario in plan(names, study, dataset, claims)
        ]
        if claims:
            outcomes += measure_drawings(study, judge, dataset)
    if args.write_table:
        write_table(study, outcomes, args.write_table)
    else:
        outcomes.append(attempt(Scenario(name="contact sheet"), lambda _: write_sheet(study, names, args.out / "quality.png")))
    return outcomes


def plan(names: Iterable[str], study: Study, dataset: str, claims: bool) -> list[Scenario]:
    """One scenario for each candidate."""
    scenarios = []
    for name in names:
        floor = next((floor for ending, floor in TARGETS.items() if name == ending or name.endswith("-" + ending)), None)
        targets = {"overall": Target(low=floor)} if claims and floor is not None else {}
        settings = {"candidate": name, "captions": dataset, "prompts": len(study.captions), "typed": len(study.typed)}
        scenarios.append(Scenario(name=name, settings=settings, repeats=study.seeds, targets=targets))
    return scenarios


def measure_candidate(study: Study, judge: Judge, runtime: Runtime, scenario: Scenario) -> Measured:
    """Every prompt with every seed."""
    name = scenario.name

    def picture(number: int, seed: int) -> Pixels:
        # Seeds differ from prompt to prompt, so that the interval over prompts covers them too; candidates share them.
        pixels: Pixels = runtime.generate(study.prompts[number].text, seed=study.seeds * number + seed, candidate=name).pixels[0]
        return pixels

    return Measured(figures=score(study, judge, name, range(len(study.prompts)), picture, study.seeds))


def score(study: Study, judge: Judge, name: str, numbers: Sequence[int], picture: Picture, seeds: int) -> list[Figure]:
    """The figures of one row of the table; pictures of prompts on the sheet are kept."""
    kept: dict[int, Tile] = {}
    found: dict[int, float] = {}
    by_attribute: defaultdict[str, list[float]] = defaultdict(list)
    wanted = set(study.on_sheet())
    for number in counted(numbers, name):
        each = []
        for seed in range(seeds):
            pixels = picture(number, seed)
            probabilities = judge.probabilities(pixels, study.prompts[number].stated)
            each.append(float(np.mean(list(probabilities.values()))))
            for attribute, probability in probabilities.items():
                by_attribute[attribute].append(probability)
            if seed == 0 and number in wanted:
                kept[number] = Tile(pixels=pixels, score=each[0])
        found[number] = float(np.mean(each))
    study.tiles[name] = kept
    study.scores[name] = [found[number] for number in numbers if number < len(study.captions)]
    return [*summarise(study, found), *(summarise_attributes(by_attribute) if study.by_attribute else [])]


def summarise(study: Study, found: dict[int, float]) -> list[Figure]:
    """Over all captions, by number of stated attributes, and over the typed prompts."""
    captions = dict(list(enumerate(study.captions)))
    figures = [mean("overall", [found[number] for number in captions], "score")]
    for bucket in BUCKETS:
        figures.append(mean(bucket, [found[number] for number, prompt in captions.items() if prompt.bucket == bucket], "score"))
    typed = [value for number, value in found.items() if number >= len(captions)]
    return [*figures, *([mean("human", typed, "score")] if typed else [])]


def summarise_attributes(found: dict[str, list[float]]) -> list[Figure]:
    """For each attribute, over the prompts that state it."""
    return [mean(name, values, "score", table="by attribute, where it is stated") for name, values in sorted(found.items())]


def measure_drawings(study: Study, judge: Judge, dataset: str) -> list[Outcome]:
    """Ceiling, autoencoder and floor."""

    def row(name: str, what: str, make: Callable[[], Picture], **targets: Target) -> Outcome:
        scenario = Scenario(name=name, settings={"picture": what, "captions": dataset, "prompts": len(study.captions)}, targets=targets)
        return attempt(scenario, lambda _: Measured(figures=score(study, judge, name, range(len(study.captions)), make(), seeds=1)))

    def drawn(offset: int = 0) -> Picture:
        draw = open_painter()
        return lambda number, _: judge.fit(draw(study.captions[(number + offset) % len(study.captions)]))

    def reconstructed() -> Picture:
        draw, there_and_back = drawn(), judge.open_autoencoder()
        return lambda number, seed: there_and_back(draw(number, seed))

    return [
        row("drawn scene", "the caption's own scene, drawn", drawn),
        row("reconstruction", "the same through the autoencoder", reconstructed, overall=Target(low=RECONSTRUCTION_TARGET)),
        row("wrong scene", "another caption's scene, drawn", lambda: drawn(len(study.captions) // 2 + 1)),
    ]


def open_painter() -> Callable[[Prompt], Pixels]:
    """Draws a caption's scene, always the same way."""
    try:
        from costroute_rt.export.postcard.painter import new_surface, render
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install skia-python", name=error.name) from error
    surface = new_surface()
    return lambda prompt: render(prompt.scene, random.Random(f"{prompt.name}-drawing"), surface)[0]


def write_sheet(study: Study, names: Sequence[str], path: Path) -> Measured:
    """The contact sheet, with the drawn scene in the last column where it could be drawn."""
    columns = [name for name in (*names, "drawn scene") if study.tiles.get(name)]
    rows = []
    for number in study.on_sheet():
        prompt = study.prompts[number]
        remark = f"{'a caption' if prompt.scene else 'typed by a person'}, {len(prompt.stated)} stated"
        rows.append(SheetRow(text=prompt.text, remark=remark, tiles=[study.tiles[name].get(number) for name in columns]))
    title = "What each candidate draws, and how much of the prompt the scorer finds in it"
    draw_sheet(title, [name.removeprefix("postcard-") for name in columns], rows, path)
    say(f"contact sheet: {path}")
    return Measured(figures=(), notes={"file": str(path)})


def write_table(study: Study, outcomes: Sequence[Outcome], path: Path) -> None:
    """What the export recipe takes as `quality`; nothing is written where a candidate failed."""
    failed = [outcome.scenario.name for outcome in outcomes if outcome.error is not None]
    if failed:
        say(f"{path} was not written, because {', '.join(failed)} failed")
        return
    candidates: dict[str, Any] = {}
    for name, scores in study.scores.items():
        error = float(np.std(scores, ddof=1) / len(scores) ** 0.5)
        candidates[name] = {"mean": round(float(np.mean(scores)), 5), "standard_error": round(error, 5)}
    path.write_text(json.dumps({"metric": "scorer", "candidates": candidates}, indent=1) + "\n", encoding="utf-8")
    say(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
