"""Routers fitted to pairwise votes in place of scores, or beside them.

    python -m benchmarks.router_votes alone       5 and 20 votes a prompt
    python -m benchmarks.router_votes together    20 votes a prompt beside scores of one image of each model

Votes are simulated from GeckoNum, human scores of five images for each of 1,350 prompts and seven models: a vote takes two models at random
and one image of each, and the image with the higher score wins; equal scores are a tie. The router is fitted as `fit-router --votes` does
it, and judged by the scores of the other fold, as in `benchmarks.router`. The area is compared with that by all scores.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.fold_figures import kind_figures, show
from benchmarks.report import make_parser, run_benchmark
from benchmarks.router import AREA, FOLD_SEEDS, FOLDS, GAIN_OVER_AVERAGES, QUICK_PROMPTS, SHRUNK, keep_prompts, route_folds
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, run_scenario
from benchmarks.score_table import DATA, TABLES, label_table
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import complete_prompts
from costroute_rt.export.router.curve import Interval
from costroute_rt.export.router.label_set import LabelSet
from costroute_rt.export.router.labels import LabelTable

TABLE = TABLES["geckonum"]
SHARE = "area, share of that by all scores"
CASES: dict[str, dict[str, tuple[bool, int, float | None]]] = {
    "alone": {"5 votes a prompt": (False, 5, 0.55), "20 votes a prompt": (False, 20, 0.70)},
    "together": {"scores of one image": (True, 0, None), "scores of one image and 20 votes a prompt": (True, 20, None)},
}
"""Whether the scores of one image of each model are labels, votes for each prompt, and the target of SHARE."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return run_benchmark("router_votes", args, argv, partial(run, args))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("router_votes", __doc__ or "")
    parser.add_argument("what", choices=sorted(CASES), help="which labels")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="folder of the score tables (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the votes (default: %(default)s)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario for each case; one that is marked as skipped where the tables are missing."""
    missing = [file for file in TABLE.files if not (args.data / file).is_file()]
    if missing:
        scenario = Scenario(name="router_votes", settings={"data": str(args.data)})
        return [Outcome(scenario=scenario, notes={"skipped": f"skipped: {', '.join(missing)} not found in {args.data}"})]
    with label_table(TABLE.rows(args.data)) as table:
        truth = table.cells()
        if args.quick:
            truth = truth.select(np.random.default_rng(0).permutation(len(truth))[:QUICK_PROMPTS])
        full = fold_figures(truth, truth)
        return [
            run_scenario(
                Scenario(
                    name=name,
                    settings={
                        "labels": TABLE.about,
                        "encoder": "hashed",
                        "folds": FOLDS,
                        "fold_seeds": list(FOLD_SEEDS),
                        "seed": args.seed,
                    },
                    targets={} if target is None else {SHARE: Target(low=target)},
                ),
                partial(measure, args.seed, table, truth, full, has_scores, votes),
            )
            for name, (has_scores, votes, target) in CASES[args.what].items()
        ]


def measure(
    seed: int, table: LabelTable, truth: Cells, full: dict[str, Interval], has_scores: bool, votes: int, scenario: Scenario
) -> Measurement:
    """Gain and area of routers fitted to these labels, and the share of the area by all scores."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "scores.csv" if has_scores else None, Path(folder) / "votes.csv" if votes else None]
        if files[0] is not None:
            write_scores(files[0], table, truth)
        if files[1] is not None:
            write_votes(files[1], table, truth, votes, seed)
        cells = LabelSet.open(*files).cells(truth.candidates)
    found = fold_figures(same_rows(cells, truth), truth)
    share = found["area"].value / full["area"].value
    figures = [
        show(GAIN_OVER_AVERAGES, found["gain"]),
        show(AREA, found["area"]),
        show(f"{AREA}, by all scores", full["area"]),
        Figure(name=SHARE, value=share, unit="share"),
    ]
    return Measurement(figures=figures)


def fold_figures(labels: Cells, truth: Cells) -> dict[str, Interval]:
    """`gain` and `area` over averages of routers fitted to the labels of four folds, judged by the scores of the fifth."""
    complete = complete_prompts(truth)
    folds = [keep_prompts(fold, complete) for seed in FOLD_SEEDS for fold in route_folds(labels, seed)]
    return kind_figures(folds, SHRUNK, truth.select(complete))


def same_rows(cells: Cells, truth: Cells) -> Cells:
    """The cells in the order of the prompts of `truth`, all of which they have."""
    place = {prompt_id: row for row, prompt_id in enumerate(cells.prompt_ids)}
    return cells.select([place[prompt_id] for prompt_id in truth.prompt_ids])


def write_scores(path: Path, table: LabelTable, truth: Cells) -> None:
    """A table of the scores of each model's first image."""
    wanted, first = set(truth.prompt_ids), set[tuple[str, str]]()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt_id", "prompt", "candidate", "score"])
        for label in table.labels:
            key = label.prompt_id, label.candidate
            if label.prompt_id in wanted and key not in first:
                first.add(key)
                writer.writerow([label.prompt_id, label.prompt, label.candidate, label.score])


def write_votes(path: Path, table: LabelTable, truth: Cells, count: int, seed: int) -> None:
    """A table of `count` votes for each prompt."""
    rng = np.random.default_rng(seed)
    images: dict[str, dict[str, list[float]]] = {}
    for label in table.labels:
        images.setdefault(label.prompt_id, {}).setdefault(label.candidate, []).append(label.score)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt_id", "prompt", "candidate_a", "candidate_b", "winner"])
        for prompt_id, text in zip(truth.prompt_ids, truth.prompts, strict=True):
            own = images[prompt_id]
            for _ in range(count):
                pair = rng.choice(sorted(own), 2, replace=False).tolist()
                one, other = (rng.choice(own[name]) for name in pair)
                winner = "tie" if one == other else "a" if one > other else "b"
                writer.writerow([prompt_id, text, *pair, winner])


if __name__ == "__main__":
    sys.exit(main())
