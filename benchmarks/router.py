"""Gain from routing by the prompt.

    python -m benchmarks.router postcard    the shipped router on held-out captions and seeds
    python -m benchmarks.router time        time and memory of a router for one prompt
    python -m benchmarks.router geckonum    1,350 prompts x 7 models: the best model depends on the text
    python -m benchmarks.router agiqa3k     300 prompts x 10 candidates: one is nearly always the best, so routing must not lose
    python -m benchmarks.router tifa160     160 prompts x 5 models, noisy: routing must not lose

The last three are public human labels, so that others can check the method. Prompts are divided into five folds (equal texts together). For
each fold a router is fitted to the other four, with its own cross-validation and do-no-harm rule, and routes the fold as it would when
shipped. The encoder is hashed word n-grams. The data is read from --data; see the README there. These tables have no costs: for the area,
costs are assumed to rise in equal steps with mean quality.

Intervals are 95 %, by a paired bootstrap over prompts. The best single candidate is chosen in hindsight.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import postcard_router, router_time
from benchmarks.held_out import add_options
from benchmarks.postcard_router import ORACLE, TITLES
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import ABOVE_ZERO, Figure, Measurement, Outcome, Scenario, Target, interval_figure, log, run_scenario
from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import complete_prompts, cross_validate, split_folds
from costroute_rt.export.router.evaluate import split_seeds
from costroute_rt.export.router.fit import learn
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.routing.array import FloatArray
from costroute_rt.routing.prompt_encoder import HashedEncoder

DATA = Path("../shared/data")
FOLDS = 5
QUICK_PROMPTS = 120
GAIN, AREA = TITLES["gain"], TITLES["area"]
Rows = Iterator[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A public table of human scores, and its targets."""

    about: str
    files: tuple[str, ...]
    rows: Callable[[Path], Rows]
    """Reads the rows of a label table from the data folder."""
    targets: Mapping[str, Target]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return run_benchmark("router", args, argv, partial(run, args))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("router", __doc__ or "")
    parser.add_argument("dataset", choices=[*OWN, *sorted({name.split(" ")[0] for name in DATASETS})], help="labels to use")
    add_options(parser)
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="folder of the score tables (default: %(default)s)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per score of the dataset; a scenario marked as skipped where its files are missing."""
    if args.dataset in OWN:
        return OWN[args.dataset](args)
    chosen = {name: dataset for name, dataset in DATASETS.items() if name.split(" ")[0] == args.dataset}
    missing = {file for dataset in chosen.values() for file in dataset.files if not (args.data / file).is_file()}
    if missing:
        scenario = Scenario(name=args.dataset, settings={"data": str(args.data)})
        return [Outcome(scenario=scenario, notes={"skipped": f"skipped: {', '.join(sorted(missing))} not found in {args.data}"})]
    return [
        run_scenario(
            Scenario(name=name, settings={"labels": dataset.about, "encoder": "hashed", "folds": FOLDS}, targets=dataset.targets),
            partial(measure, args, dataset),
        )
        for name, dataset in chosen.items()
    ]


def measure(args: argparse.Namespace, dataset: Dataset, scenario: Scenario) -> Measurement:
    """Routes every fold by a router fitted to the others."""
    with label_table(dataset.rows(args.data)) as table:
        cells = table.cells()
        if args.quick:
            cells = cells.select(np.random.default_rng(0).permutation(len(cells))[:QUICK_PROMPTS])
        oracle = oracle_figures(table, set(cells.prompt_ids))
    features = HashedEncoder().encode(cells.prompts, None)
    estimate, reasons = route_folds(cells, features)
    whole = cross_validate(cells, features)
    complete = complete_prompts(cells)
    kept = cells.select(complete)
    figures = [*routing_figures(kept, estimate[complete]), *oracle]
    figures.append(interval_figure("gain without do-no-harm rule", whole.gain, "score"))
    if whole.leave_category_out is not None:
        figures.append(interval_figure("gain, leave one category out", whole.leave_category_out, "score"))
    by_prompt = sum(each.startswith("prompt") for each in reasons)
    notes = {"routes on": f"prompts in {by_prompt} of {FOLDS} folds, averages in {FOLDS - by_prompt}", "estimator": str(whole.chosen)}
    return Measurement(figures=figures, notes=notes)


def route_folds(cells: Cells, features: np.ndarray) -> tuple[FloatArray, list[str]]:
    """Estimates of every prompt by a router fitted without its fold; and for each fold what its router routes on, and why."""
    fold = split_folds(cells.groups, FOLDS, seed=1)
    estimate, reasons = np.empty_like(cells.mean), []
    for number in range(FOLDS):
        started = time.monotonic()
        router = learn(cells.select(fold != number), features[fold != number])
        estimate[fold == number] = router.estimate(features[fold == number])
        reasons.append(f"{router.routes_on}: {router.reason}")
        log(f"  fold {number + 1} of {FOLDS}, {time.monotonic() - started:.0f} s; routes on {reasons[-1]}")
    return estimate, reasons


def routing_figures(cells: Cells, estimate: FloatArray) -> list[Figure]:
    """Gain over the best single candidate, and area above random mixing at assumed costs."""
    scored, best = cells.mean, int(cells.mean.mean(0).argmax())
    choice = curve.route(estimate, cells.cost_ms, [0.0]).choice[0]
    gain = curve.bootstrap_mean(scored[np.arange(len(cells)), choice] - scored[:, best], cells.groups)
    cost = assumed_cost(scored.mean(0))
    routed = curve.route(estimate, cost)
    area = curve.bootstrap(lambda weight: {"area": curve.figures_by_weight(routed, cost, scored)(weight)["area"]}, cells.groups)["area"]
    figures = [
        Figure(name="best single candidate", value=float(scored[:, best].mean()), unit="score"),
        interval_figure(GAIN, gain, "score"),
        Figure(name=f"{GAIN}, upper bound", value=gain.high, unit="score"),
        Figure(name=f"{GAIN}, lower bound", value=gain.low, unit="score"),
        interval_figure(AREA, area, "score"),
    ]
    same_labels = float((scored.max(1) - scored[:, best]).mean())
    return [*figures, Figure(name="oracle by the same labels", value=same_labels, unit="score")]


def assumed_cost(quality: FloatArray) -> FloatArray:
    """1, 2, 3 ... in the order of mean quality."""
    cost = np.empty(len(quality))
    cost[np.argsort(quality)] = np.arange(1, len(quality) + 1)
    return cost


def oracle_figures(table: LabelTable, prompt_ids: set[str]) -> list[Figure]:
    """Gain of choosing by one half of the seeds on the other half, as labelled and shrunk by noise; none where there is one seed."""
    halves = split_seeds(lambda seeds: table.cells(seeds=seeds), table.seeds)
    if not halves:
        return []
    first, second = (half.select([row for row, key in enumerate(half.prompt_ids) if key in prompt_ids]) for half in halves)
    figures = []
    for name, is_shrunk in ((ORACLE, False), (f"{ORACLE}, shrunk labels", True)):
        pairs = [(curve.shrink(a.mean, a.variance) if is_shrunk else a.mean, b.mean) for a, b in ((first, second), (second, first))]
        figures.append(Figure(name=name, value=curve.oracle(pairs, first.cost_ms)[1], unit="score"))
    return figures


@contextmanager
def label_table(rows: Rows) -> Iterator[LabelTable]:
    """Writes the rows to a temporary file and opens it as a label table, as users' labels are opened."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("prompt_id", "prompt", "category", "candidate", "seed", "score"))
            writer.writeheader()
            writer.writerows(rows)
        yield LabelTable.open(path, category="category")


def read_geckonum(folder: Path) -> Rows:
    """One row per image; the texts of the prompts come from the table of means."""
    prompts = {row["prompt_id"]: row for row in read_table(folder / "scores_geckonum.csv.gz")}
    for row in read_table(folder / "scores_geckonum_per_image.csv.gz"):
        if row["prompt_id"] in prompts:
            yield _label(prompts[row["prompt_id"]], "prompt_type", row["model"], row["score"], row["seed"])


def read_agiqa3k(folder: Path, columns: Sequence[str]) -> Rows:
    """One row per image, scored by the sum of these columns."""
    for row in read_table(folder / "scores_agiqa3k.csv"):
        yield _label(row, "style", row["model"], str(sum(float(row[name]) for name in columns)))


def read_tifa160(folder: Path) -> Rows:
    """One row per image, scored by the raters' mean; the category is the first part of the prompt's id."""
    for row in read_table(folder / "scores_tifa160.csv"):
        yield _label({**row, "kind": row["prompt_id"].split("_")[0]}, "kind", row["model"], row["score"])


def _label(row: Mapping[str, str], category: str, candidate: str, score: str, seed: str = "0") -> dict[str, str]:
    texts = {"prompt_id": row["prompt_id"], "prompt": row["prompt"], "category": row[category]}
    return {**texts, "candidate": candidate, "seed": seed, "score": score}


def read_table(path: Path) -> Rows:
    """Rows of a CSV file, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


OWN: dict[str, Callable[[argparse.Namespace], list[Outcome]]] = {"postcard": postcard_router.run, "time": router_time.run}
"""Benchmarks of this project's own routers."""
_NO_HARM = {f"{GAIN}, upper bound": Target(low=0.0)}
DATASETS = {
    "geckonum": Dataset(
        about="people's scores, 0 to 1, five seeds, five raters each",
        files=("scores_geckonum.csv.gz", "scores_geckonum_per_image.csv.gz"),
        rows=read_geckonum,
        targets={GAIN: Target(low=0.030), f"{GAIN}, lower bound": ABOVE_ZERO, AREA: Target(low=0.055)},
    ),
    "agiqa3k align": Dataset(
        about="mos_align, 0 to 4.5, one seed",
        files=("scores_agiqa3k.csv",),
        rows=partial(read_agiqa3k, columns=("mos_align",)),
        targets=_NO_HARM,
    ),
    "agiqa3k align + quality": Dataset(
        about="mos_align + mos_quality, 0 to 9, one seed",
        files=("scores_agiqa3k.csv",),
        rows=partial(read_agiqa3k, columns=("mos_align", "mos_quality")),
        targets=_NO_HARM,
    ),
    "tifa160": Dataset(about="people's scores, 1 to 5, one seed", files=("scores_tifa160.csv",), rows=read_tifa160, targets=_NO_HARM),
}


if __name__ == "__main__":
    sys.exit(main())
