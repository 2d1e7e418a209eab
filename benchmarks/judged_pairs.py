"""The score against the eye: pairs of images of one and of eight steps, judged by somebody who did not see their scores.

prompts/judged_pairs.csv has 200 pairs of images of the same prompt and seed, and which of the two is better to the eye: left, right or
equal. Better means what the score is to measure: the image shows what the prompt states, without ghosts, blur, doubles and half-drawn
things. The images are made again and scored. The score agrees with a judgement if the better image has the higher one. Pairs that are equal
to the eye have no order to agree with; how far their scores differ is reported beside the differences of the others.

    python -m benchmarks.judged_pairs
    python -m benchmarks.judged_pairs --bundle new-bundle --sheets .     draws the pairs, without scores, for judging them again

The judged images were made by the weights of one revision. Other weights make other images, mostly with the same order; the report says how
many of the pairs are as they were judged.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import costroute_rt
from benchmarks.judge import Judge, Pixels
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, mean_figure, median_figure, run_scenario, with_progress
from benchmarks.sheet import draw_pairs
from costroute_rt import Bundle, Runtime
from costroute_rt.engines.bundle.bundle import seal_bundle
from costroute_rt.export.postcard.judge import Finding
from costroute_rt.export.postcard.scene import Value
from costroute_rt.export.router.labelling import fingerprints

PAIRS = Path(__file__).parent / "prompts" / "judged_pairs.csv"
LEFT, EQUAL = "left", "equal"
AGREEMENT = Target(low=0.9)
"""Of the pairs that are not equal to the eye."""
PAIRS_PER_SHEET, QUICK_PAIRS = 20, 4
PARTS = ("score", "cleanness", "recall")
ALL = "all pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two images of the same prompt and seed, and which one is better to the eye."""

    number: int
    prompt: str
    stated: Mapping[str, Value]
    seed: int
    left: str
    """Name of its candidate, some of which the pool does not have."""
    right: str
    judgement: str
    """left, right or equal."""
    weights: str
    """Fingerprints of both candidates when the pair was judged, as in label tables."""

    @property
    def names(self) -> str:
        """The pair's candidates in one text, the same for both orders."""
        return " or ".join(sorted((self.left, self.right)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A pair with what the scorer finds in its images."""

    pair: Pair
    left: Finding
    right: Finding

    def lead(self, part: str) -> float:
        """By how much this property of `Finding` is higher in the better image; above 0 it agrees. For an equal pair, the distance."""
        difference = float(getattr(self.left, part) - getattr(self.right, part))
        return abs(difference) if self.pair.judgement == EQUAL else difference if self.pair.judgement == LEFT else -difference


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("judged_pairs", __doc__ or "")
    parser.add_argument("--judge", type=Path, metavar="BUNDLE", help="bundle whose scorer judges (default: the one that makes the images)")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="also draw the pairs on sheets in this folder")
    parser.add_argument("--pairs", type=Path, default=PAIRS, metavar="FILE", help="the judged pairs (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("judged_pairs", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """Makes and scores the images; one scenario for all pairs and one for each two candidates. Builds missing engines."""
    pairs = read_pairs(args.pairs)[: QUICK_PAIRS if args.quick else None]
    bundle = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
    judging = bundle if args.judge is None else Bundle.open(args.judge)
    with tempfile.TemporaryDirectory(prefix="costroute-pairs-") as scratch, Judge.open(judging, args.home) as judge:
        wider = Bundle.open(bundle_with(bundle, {name for pair in pairs for name in (pair.left, pair.right)}, Path(scratch)))
        with Runtime.open(wider.root, home=args.home, build=True) as runtime:
            images = [make_images(runtime, pair) for pair in with_progress(pairs, "pairs")]
        scored = [
            Scored(pair=pair, left=judge.look(left, pair.stated), right=judge.look(right, pair.stated))
            for pair, (left, right) in zip(pairs, images, strict=True)
        ]
        marks = fingerprints(wider)
    if args.sheets is not None:
        draw_sheets(pairs, images, args.sheets)
    return [run_scenario(scenario, partial(measure, scored, marks)) for scenario in make_scenarios(pairs)]


def read_pairs(path: Path) -> list[Pair]:
    """The judged pairs of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Pair(**{**row, "number": int(row["number"]), "seed": int(row["seed"]), "stated": json.loads(row["stated"])})
            for row in csv.DictReader(file)
        ]


def bundle_with(bundle: Bundle, names: Iterable[str], folder: Path) -> Path:
    """A copy of the bundle in `folder`, without its router, whose pool also has the candidates NAME@STEPS that the bundle's own lacks."""
    manifest = bundle.read_manifest()
    rows, quality = {row["name"]: row for row in manifest["pool"]}, manifest["quality"]
    for name in sorted(set(names) - rows.keys()):
        kind, _, steps = name.partition("@")
        like = next(row for row in manifest["pool"] if row["name"].startswith(f"{kind}@"))
        rows[name] = {**like, "name": name, "num_inference_steps": int(steps)}
        quality["candidates"][name] = quality["candidates"][like["name"]]
    shutil.copytree(bundle.root, folder, dirs_exist_ok=True)
    kept = {key: value for key, value in manifest.items() if key not in ("format", "format_version", "files")}
    return seal_bundle(folder, {**kept, "pool": list(rows.values()), "router": None}).root


def make_images(runtime: Runtime, pair: Pair) -> tuple[Pixels, Pixels]:
    """The left and the right image."""
    left, right = (runtime.generate(pair.prompt, seed=pair.seed, candidate=name).pixels[0] for name in (pair.left, pair.right))
    return left, right


def make_scenarios(pairs: Sequence[Pair]) -> list[Scenario]:
    """All pairs, with the target, and then those of each two candidates."""
    parts = [Scenario(name=names, settings={"pairs": names}) for names in sorted({pair.names for pair in pairs})]
    return [Scenario(name=ALL, settings={"pairs": ALL}, targets={f"agreement of {PARTS[0]}": AGREEMENT}), *parts]


def measure(scored: Sequence[Scored], marks: Mapping[str, str], scenario: Scenario) -> Measurement:
    """How often the score and its parts agree, and how far scores differ, on the pairs of a scenario."""
    chosen = [each for each in scored if scenario.name in (ALL, each.pair.names)]
    groups: dict[str, list[Scored]] = {"equal pairs": [], "other pairs": []}
    for each in chosen:
        groups["equal pairs" if each.pair.judgement == EQUAL else "other pairs"].append(each)
    unchanged = [each for each in chosen if each.pair.weights == f"{marks[each.pair.left]} {marks[each.pair.right]}"]
    figures = [Figure(name=name, value=len(group), unit="count") for name, group in groups.items()]
    for part in PARTS:
        if groups["other pairs"] and getattr(chosen[0].left, part) is not None:
            leads = [each.lead(part) for each in groups["other pairs"]]
            figures.append(mean_figure(f"agreement of {part}", [lead > 0 for lead in leads], "share"))
    for name, group in groups.items():
        if group:
            figures.append(median_figure(f"difference, {name}", [abs(each.lead("score")) for each in group], "score"))
    return Measurement(figures=[*figures, Figure(name="of the judged weights", value=len(unchanged), unit="count")])


def draw_sheets(pairs: Sequence[Pair], images: Sequence[tuple[Pixels, Pixels]], folder: Path) -> None:
    """Draws PAIRS_PER_SHEET pairs on each sheet, with number and prompt, without candidates and scores."""
    rows = [(f"{pair.number}: {pair.prompt}", *both) for pair, both in zip(pairs, images, strict=True)]
    for first in range(0, len(rows), PAIRS_PER_SHEET):
        path = folder / f"pairs-{pairs[first].number:03}.png"
        draw_pairs(rows[first : first + PAIRS_PER_SHEET], path)
        log(f"pairs: {path}")


if __name__ == "__main__":
    sys.exit(main())
