"""Quality of every candidate's images: how much of what a prompt states the scorer finds in them, and how clean they are.

Uses 200 captions of scenes that no training run has seen (50 per band of the number of stated things), two seeds each, 200 free-form
prompts in the manner of many hands (lower case, lists, poems, typos, other orders, and things that must not be there), and 116 by somebody
who had not seen the caption grammar. Recall is the scorer's mean probability of the stated things. Cleanness, if the bundle's scorer judges
it, is about 0.9 for drawings and falls with ghosts, blur, doubles and half-drawn things. The score is made of both (docs/routing.md).
Intervals are 95 % over prompts. For comparison: the drawing of the caption's own scene (upper bound), the same drawing encoded and decoded
by the autoencoder, and the drawing of another scene (lower bound); these need skia-python. A contact sheet is written to DIR/quality.png.

    python -m benchmarks.quality
    python -m benchmarks.quality --candidates postcard-base@8 postcard-turbo@2 --attributes
    python -m benchmarks.quality --write-table quality.json     `quality` for the bundle's manifest, from a separate set of captions
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import costroute_rt
from benchmarks.caption import OTHER_HANDS, Prompt, free_form_prompts, held_out_captions
from benchmarks.judge import Judge, Pixels
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, mean_figure, run_scenario, with_progress
from benchmarks.sheet import SheetRow, Tile, draw_sheet
from costroute_rt import Bundle, Runtime
from costroute_rt.export.postcard.captions import BANDS
from costroute_rt.export.postcard.judge import Finding

REPORTED, ROUTING = "held-out-quality", "held-out-routing"
"""Names of the two sets of captions; no training data uses them."""
TARGETS = {"base@8": 0.993, "turbo@2": 0.98, "turbo@1": 0.96}
"""Lowest recall over all captions, by the end of a candidate's name."""
FREE_FORM_TARGETS = {"base@8": 0.96}
"""The same over the free-form prompts."""
UNWANTED_TARGETS = {"base@8": 0.03}
"""Highest probability of things that a free-form prompt excludes, by the end of a candidate's name."""
RECONSTRUCTION_TARGET = 0.99
PER_BAND, SEEDS, FREE_FORM = 50, 2, 200
QUICK_PER_BAND, QUICK_SEEDS, QUICK_FREE_FORM = 2, 1, 4
SHEET_PER_BAND, SHEET_FREE_FORM = 2, 6
RECALL, FREE_FORM_RECALL, UNWANTED = "recall of stated things", "free-form prompts", "things that should not be there"
OTHER_HANDS_RECALL, OTHER_HANDS_UNWANTED = "prompts of other hands", "things that should not be there, other hands"
CLEANNESS, SCORE = "cleanness", "score"
DRAWN, RECONSTRUCTED, WRONG = "drawn scene (upper bound)", "autoencoder reconstruction", "wrong scene (lower bound)"
MakeImage = Callable[[int, int], Pixels]
"""(number of the prompt, seed) -> uint8[height, width, 3]"""


@dataclass(slots=True)
class Study:
    """The prompts, and the scores and selected images of each candidate."""

    captions: list[Prompt]
    free_form: list[Prompt]
    other_hands: list[Prompt]
    """Free-form prompts by somebody who had not seen the caption grammar."""
    seeds: int
    by_attribute: bool
    tiles: dict[str, dict[int, Tile]] = field(default_factory=dict)
    """By candidate and number of the prompt: the first image of each prompt on the sheet."""
    scores: dict[str, list[float]] = field(default_factory=dict)
    """By candidate: mean over seeds for each caption."""

    @property
    def prompts(self) -> list[Prompt]:
        return self.captions + self.free_form + self.other_hands

    def on_sheet(self) -> list[int]:
        """Numbers of the prompts on the contact sheet: the first captions of each band, and evenly spaced free-form prompts."""
        chosen: list[int] = []
        for band in BANDS:
            chosen += [number for number, prompt in enumerate(self.captions) if prompt.band == band][:SHEET_PER_BAND]
        step = max(1, len(self.free_form) // SHEET_FREE_FORM)
        return chosen + [len(self.captions) + index for index in range(step // 2, len(self.free_form), step)[:SHEET_FREE_FORM]]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return run_benchmark("quality", args, argv, partial(run, args))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("quality", __doc__ or "")
    parser.add_argument("--candidates", nargs="+", metavar="NAME", help="candidates to measure (default: the whole pool)")
    parser.add_argument("--attributes", action="store_true", help="also print the recall of each attribute")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), metavar="DIR", help="folder of the contact sheet (default: %(default)s)"
    )
    parser.add_argument(
        "--write-table", type=Path, metavar="FILE", help="use the captions reserved for the manifest, and write their mean scores to FILE"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> list[Outcome]:
    """Measures all candidates and drawings; builds missing engines."""
    per_band, seeds = (QUICK_PER_BAND, QUICK_SEEDS) if args.quick else (PER_BAND, SEEDS)
    dataset = ROUTING if args.write_table else REPORTED
    free_form, other_hands = list[Prompt](), list[Prompt]()
    if not args.write_table:
        free_form = free_form_prompts(QUICK_FREE_FORM if args.quick else FREE_FORM)
        other_hands = free_form_prompts(QUICK_FREE_FORM if args.quick else None, OTHER_HANDS)
    study = Study(held_out_captions(dataset, per_band), free_form, other_hands, seeds, args.attributes)
    bundle = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
    with Judge.open(bundle, args.home) as judge, Runtime.open(bundle.root, home=args.home, build=True) as runtime:
        names = args.candidates or [candidate.name for candidate in runtime.candidates]
        with_targets = not args.write_table
        outcomes = [
            run_scenario(scenario, lambda each: measure_candidate(study, judge, runtime, each))
            for scenario in make_scenarios(names, study, dataset, with_targets)
        ]
        if with_targets:
            outcomes += measure_drawings(study, judge, dataset)
    if args.write_table:
        write_table(study, outcomes, args.write_table)
    else:
        outcomes.append(run_scenario(Scenario(name="contact sheet"), lambda _: write_sheet(study, names, args.out / "quality.png")))
    return outcomes


def make_scenarios(names: Iterable[str], study: Study, dataset: str, with_targets: bool) -> list[Scenario]:
    """One scenario per candidate."""
    scenarios = []
    for name in names:
        targets = targets_of(name) if with_targets else {}
        settings = {"candidate": name, "captions": dataset, "prompts": len(study.captions), "free_form": len(study.free_form)}
        settings["other_hands"] = len(study.other_hands)
        scenarios.append(Scenario(name=name, settings=settings, repeats=study.seeds, targets=targets))
    return scenarios


def targets_of(name: str) -> dict[str, Target]:
    """The targets of a candidate's figures."""

    def find(table: Mapping[str, float]) -> float | None:
        return next((value for ending, value in table.items() if name == ending or name.endswith("-" + ending)), None)

    recall, free_form, unwanted = find(TARGETS), find(FREE_FORM_TARGETS), find(UNWANTED_TARGETS)
    targets = {figure: Target(low=low) for figure, low in ((RECALL, recall), (FREE_FORM_RECALL, free_form)) if low is not None}
    return targets | ({UNWANTED: Target(high=unwanted)} if unwanted is not None else {})


def measure_candidate(study: Study, judge: Judge, runtime: Runtime, scenario: Scenario) -> Measurement:
    """Scores one candidate on every prompt with every seed."""
    name = scenario.name

    def make_image(number: int, seed: int) -> Pixels:
        # Each prompt has its own seeds, so that the interval over prompts covers seeds too; all candidates use the same ones.
        pixels: Pixels = runtime.generate(study.prompts[number].text, seed=study.seeds * number + seed, candidate=name).pixels[0]
        return pixels

    return Measurement(figures=score(study, judge, name, range(len(study.prompts)), make_image, study.seeds))


def score(study: Study, judge: Judge, name: str, numbers: Sequence[int], make_image: MakeImage, seeds: int) -> list[Figure]:
    """Figures of one row of the table; keeps the scores, and the images of prompts on the sheet, in `study`."""
    tiles: dict[int, Tile] = {}
    found: dict[int, list[Finding]] = {}
    on_sheet = set(study.on_sheet())
    for number in with_progress(numbers, name):
        found[number] = []
        for seed in range(seeds):
            pixels = make_image(number, seed)
            found[number].append(judge.look(pixels, study.prompts[number].stated))
            if seed == 0 and number in on_sheet:
                tiles[number] = Tile(pixels=pixels, score=found[number][0].score)
    study.tiles[name] = tiles
    study.scores[name] = [mean_over_seeds(found[number], "score") for number in numbers if number < len(study.captions)]
    return [*summarise(study, found), *(summarise_attributes(found) if study.by_attribute else [])]


def mean_over_seeds(findings: Sequence[Finding], part: str) -> float:
    """Mean of one property of `Finding`."""
    return float(np.mean([getattr(each, part) for each in findings]))


def summarise(study: Study, found: Mapping[int, Sequence[Finding]]) -> list[Figure]:
    """Recall over all captions, by band of the number of stated things, and over the free-form prompts; cleanness and score of captions."""
    recall = {number: mean_over_seeds(findings, "recall") for number, findings in found.items()}
    captions = dict(enumerate(study.captions))
    figures = [mean_figure(RECALL, [recall[number] for number in captions], "score")]
    if found[0][0].cleanness is not None:
        for name in (CLEANNESS, SCORE):
            figures.append(mean_figure(name, [mean_over_seeds(found[number], name) for number in captions], "score"))
    for band in BANDS:
        members = [number for number, prompt in captions.items() if prompt.band == band]
        figures.append(mean_figure(f"{band} stated", [recall[number] for number in members], "score"))
    first = len(captions)
    kinds = ((study.free_form, FREE_FORM_RECALL, UNWANTED), (study.other_hands, OTHER_HANDS_RECALL, OTHER_HANDS_UNWANTED))
    for prompts, name, unwanted in kinds:
        numbers = [number for number in range(first, first + len(prompts)) if number in found]
        first += len(prompts)
        if numbers:
            figures.append(mean_figure(name, [recall[number] for number in numbers], "score"))
        shares = [share for number in numbers if (share := unwanted_share(study.prompts[number], found[number])) is not None]
        figures += [mean_figure(unwanted, shares, "share")] if shares else []
    return figures


def unwanted_share(prompt: Prompt, findings: Sequence[Finding]) -> float | None:
    """Mean probability that the things which a prompt excludes are in its images; None if it excludes nothing."""
    shown = [1 - value for each in findings for name, value in each.probabilities.items() if prompt.excludes(name)]
    return float(np.mean(shown)) if shown else None


def summarise_attributes(found: Mapping[int, Sequence[Finding]]) -> list[Figure]:
    """Recall of each attribute over the prompts that state it."""
    by_attribute: defaultdict[str, list[float]] = defaultdict(list)
    for each in chain(*found.values()):
        for attribute, probability in each.probabilities.items():
            by_attribute[attribute].append(probability)
    return [
        mean_figure(name, values, "score", table="recall by attribute, over the prompts that state it")
        for name, values in sorted(by_attribute.items())
    ]


def measure_drawings(study: Study, judge: Judge, dataset: str) -> list[Outcome]:
    """Upper bound, autoencoder reconstruction and lower bound."""

    def row(name: str, what: str, open_source: Callable[[], MakeImage], targets: Mapping[str, Target]) -> Outcome:
        scenario = Scenario(name=name, settings={"image": what, "captions": dataset, "prompts": len(study.captions)}, targets=targets)
        return run_scenario(
            scenario, lambda _: Measurement(figures=score(study, judge, name, range(len(study.captions)), open_source(), seeds=1))
        )

    def drawn(offset: int = 0) -> MakeImage:
        draw = open_painter()
        return lambda number, _: judge.fit(draw(study.captions[(number + offset) % len(study.captions)]))

    def reconstructed() -> MakeImage:
        draw, autoencoder = drawn(), judge.open_autoencoder()
        return lambda number, seed: autoencoder(draw(number, seed))

    return [
        row(DRAWN, "drawing of the caption's scene", drawn, {}),
        row(RECONSTRUCTED, "the same drawing, encoded and decoded", reconstructed, {RECALL: Target(low=RECONSTRUCTION_TARGET)}),
        row(WRONG, "drawing of another caption's scene", lambda: drawn(len(study.captions) // 2 + 1), {}),
    ]


def open_painter() -> Callable[[Prompt], Pixels]:
    """Returns a function that draws a caption's scene, always the same way; raises ModuleNotFoundError without skia-python."""
    try:
        from costroute_rt.export.postcard.painter import new_surface, render
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install skia-python", name=error.name) from error
    surface = new_surface()
    return lambda prompt: render(prompt.scene, random.Random(f"{prompt.name}-drawing"), surface)[0]


def write_sheet(study: Study, names: Sequence[str], path: Path) -> Measurement:
    """Draws the contact sheet; the last column is the drawn scene, if skia-python is installed."""
    columns = [name for name in (*names, DRAWN) if study.tiles.get(name)]
    rows = []
    for number in study.on_sheet():
        prompt = study.prompts[number]
        remark = f"{'a caption' if prompt.scene else 'a free-form prompt'}, {len(prompt.stated)} stated"
        rows.append(SheetRow(text=prompt.text, remark=remark, tiles=[study.tiles[name].get(number) for name in columns]))
    title = "Images of each candidate, with their scores"
    draw_sheet(title, [name.removeprefix("postcard-").removesuffix(" (upper bound)") for name in columns], rows, path)
    log(f"contact sheet: {path}")
    return Measurement(figures=(), notes={"file": str(path)})


def write_table(study: Study, outcomes: Sequence[Outcome], path: Path) -> None:
    """Writes the table that the export recipe takes as `quality`, unless a candidate failed."""
    failed = [outcome.scenario.name for outcome in outcomes if outcome.error is not None]
    if failed:
        log(f"{path} not written: {', '.join(failed)} failed")
        return
    candidates: dict[str, Any] = {}
    for name, scores in study.scores.items():
        error = float(np.std(scores, ddof=1) / len(scores) ** 0.5)
        candidates[name] = {"mean": round(float(np.mean(scores)), 5), "standard_error": round(error, 5)}
    path.write_text(json.dumps({"metric": "scorer", "candidates": candidates}, indent=1) + "\n", encoding="utf-8")
    log(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
