"""Gain from routing by the prompt.

    python -m benchmarks.router postcard            the shipped router on held-out captions and seeds
    python -m benchmarks.router time                time and memory of a router for one prompt
    python -m benchmarks.router geckonum            1,350 prompts x 7 models: the best model depends on the text
    python -m benchmarks.router geckonum-raised     the same with 0.25 added to the best model: nothing to gain, but much to save
    python -m benchmarks.router geckonum-sparse     the same with 60 % of the cells missing from the labels
    python -m benchmarks.router geckonum-shuffled   the same with every prompt beside the labels of another one: nothing to learn
    python -m benchmarks.router geckonum-200        the same with 200 labelled prompts
    python -m benchmarks.router geckonum-scaled     the same with scores x 100 and shifted: the choices must be the same
    python -m benchmarks.router agiqa3k             300 prompts x 10 candidates: one is nearly always the best, so routing must not lose
    python -m benchmarks.router tifa160             160 prompts x 5 models, noisy: routing must not lose

All but the first two are public human labels, so that others can check the method. Prompts are divided into five folds (equal texts
together), twice. For each fold a router is fitted to the other four, with its own cross-validation and shrinkage, and routes the fold as it
would when shipped. The encoder is hashed word n-grams. The data is read from --data; see the README there. These tables have no costs: for
the area, costs are assumed to rise in equal steps with mean quality.

The area is that between each fold's curve and the averages of the other folds mixed by chance. `unshrunk` is the same estimator believed in
full; `strict` asks for evidence at each trade-off as well (`fit-router --strict`); `yes or no` routes by it only where its cross-validated
gain at lambda 0 is surely above 0, as routers before shrinkage did.
Intervals are 95 %, by a paired bootstrap over prompts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import postcard_router, router_time
from benchmarks.fold_figures import FoldResult, best_gain, coverages, in_errors, kind_figures, show
from benchmarks.held_out import add_options
from benchmarks.postcard_router import ORACLE, TITLES
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import ABOVE_ZERO, Figure, Measurement, Outcome, Scenario, Target, log, run_scenario
from benchmarks.score_table import DATA, TABLES, Change, ScoreTable, hide_cells, label_table, raise_best, rescale, shuffle_prompts
from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import complete_prompts, split_folds
from costroute_rt.export.router.evaluate import split_seeds
from costroute_rt.export.router.fit import fit_router
from costroute_rt.export.router.grid import FitOptions
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.routing.prompt_encoder import HashedEncoder
from costroute_rt.routing.router import POOL_FIELDS

FOLDS, FOLD_SEEDS = 5, (1, 2)
QUICK_PROMPTS = 120
GAIN, AREA = TITLES["gain"], "area over averages"
GAIN_OVER_AVERAGES = "gain over averages"
SHRUNK, UNSHRUNK, STRICT, FORMER = "shrunk", "unshrunk", "strict", "yes or no"
KEPT, TIMES_FORMER = "area, share of the unshrunk", "gain less 3 x that by yes or no"
EQUAL = "equal choices after x 100 and a shift"
COVERED = {0.8: "labels inside 80 % intervals", 0.95: "labels inside 95 % intervals"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A table, what is changed about it, and its targets."""

    table: ScoreTable
    targets: Mapping[str, Target]
    about: str = ""
    change: Change | None = None
    """Made before anything else: it changes what is true."""
    hide: Change | None = None
    """Made to the labels that routers are fitted to only."""
    labelled: int | None = None
    """Prompts of the other folds that a router is fitted to, drawn at random; None means all."""
    fold_seeds: tuple[int, ...] = FOLD_SEEDS
    rescaled: bool = False
    """Whether choices are compared with those after `rescale`."""


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
    missing = {file for dataset in chosen.values() for file in dataset.table.files if not (args.data / file).is_file()}
    if missing:
        scenario = Scenario(name=args.dataset, settings={"data": str(args.data)})
        return [Outcome(scenario=scenario, notes={"skipped": f"skipped: {', '.join(sorted(missing))} not found in {args.data}"})]
    return [
        run_scenario(
            Scenario(
                name=name,
                settings={"labels": dataset.table.about, "encoder": "hashed", "folds": FOLDS, "fold_seeds": list(dataset.fold_seeds)}
                | ({"change": dataset.about} if dataset.about else {}),
                targets=dataset.targets,
            ),
            partial(measure, args, dataset),
        )
        for name, dataset in chosen.items()
    ]


def measure(args: argparse.Namespace, dataset: Dataset, scenario: Scenario) -> Measurement:
    """Routes every fold by a router fitted to the others."""
    with label_table(dataset.table.rows(args.data)) as table:
        truth = table.cells()
        if args.quick:
            truth = truth.select(np.random.default_rng(0).permutation(len(truth))[:QUICK_PROMPTS])
        oracle = [] if dataset.change else oracle_figures(table, set(truth.prompt_ids))
    truth = dataset.change(truth) if dataset.change else truth
    labels = dataset.hide(truth) if dataset.hide else truth
    folds = [fold for seed in dataset.fold_seeds for fold in route_folds(labels, seed, dataset.labelled)]
    complete = complete_prompts(truth)
    kept, judged = truth.select(complete), [keep_prompts(fold, complete) for fold in folds]
    covered = coverages(folds, SHRUNK, truth)
    figures = [*routing_figures(kept, judged), *(Figure(name=COVERED[level], value=covered[level], unit="share") for level in COVERED)]
    figures += oracle
    if dataset.rescaled:
        figures.append(Figure(name=EQUAL, value=equal_choices(labels, dataset), unit="share"))
    by_prompt = sum(fold.reason.startswith("prompt") for fold in folds)
    return Measurement(
        figures=figures, notes={"routes on": f"prompts in {by_prompt} of {len(folds)} folds, averages in {len(folds) - by_prompt}"}
    )


def route_folds(cells: Cells, seed: int, labelled: int | None = None) -> list[FoldResult]:
    """Estimates for every fold by a router fitted without it."""
    fold, found = split_folds(cells.groups, FOLDS, seed), []
    pool = [{**dict.fromkeys(POOL_FIELDS, ""), "name": name} for name in cells.candidates]
    for number in range(FOLDS):
        started = time.monotonic()
        train, test = np.flatnonzero((fold != number) & (cells.count > 0).any(1)), np.flatnonzero(fold == number)
        if labelled is not None:
            train = np.random.default_rng(FOLDS * seed + number).permutation(train)[:labelled]
        router = fit_router(cells.select(train), HashedEncoder(), None, pool=pool, labels={}, options=FitOptions(strict=True))
        prompts = [cells.prompts[row] for row in test]
        shrunk, _, trust = router.estimate(prompts, None)
        full, level = router.estimator.estimate(router.encode(prompts, None), None)[0], np.broadcast_to(router.average.mean, shrunk.shape)
        validation = router.record["cross_validation"]
        is_sure = validation is not None and validation["gain"]["low"] > 0
        reason = f"{router.routes_on}: {router.reason}"
        found.append(
            FoldResult(
                rows=test,
                average=router.average.mean,
                estimates={SHRUNK: shrunk, STRICT: shrunk, UNSHRUNK: full, FORMER: full if is_sure else level},
                reason=reason,
                label_widths=None if router.reliability is None else router.reliability.label_widths(trust),
                evidence={} if router.evidence is None else {STRICT: router.evidence},
            )
        )
        log(f"  fold {number + 1} of {FOLDS}, {time.monotonic() - started:.0f} s; routes on {reason}")
    return found


def keep_prompts(fold: FoldResult, kept: np.ndarray) -> FoldResult:
    """The fold without some prompts; rows count the kept prompts. kept: bool[prompts] of the whole table."""
    own, place = kept[fold.rows], np.cumsum(kept) - 1
    estimates = {kind: estimate[own] for kind, estimate in fold.estimates.items()}
    return replace(fold, rows=place[fold.rows[own]], estimates=estimates, label_widths=None)


def routing_figures(truth: Cells, folds: Sequence[FoldResult]) -> list[Figure]:
    """Gain and area of the router, of the same estimator unshrunk, and by the former rule."""
    best = int(truth.mean.mean(0).argmax())
    gain, found = best_gain(folds, SHRUNK, truth), {kind: kind_figures(folds, kind, truth) for kind in (SHRUNK, UNSHRUNK, STRICT, FORMER)}
    shrunk, unshrunk, strict, former = found.values()
    kept = [Figure(name=KEPT, value=shrunk["area"].value / unshrunk["area"].value, unit="share")] if unshrunk["area"].low > 0 else []
    return [
        Figure(name="best single candidate", value=float(truth.mean[:, best].mean()), unit="score"),
        show(GAIN, gain),
        Figure(name=f"{GAIN}, lower bound", value=gain.low, unit="score"),
        show(GAIN_OVER_AVERAGES, shrunk["gain"]),
        in_errors(GAIN_OVER_AVERAGES, shrunk["gain"]),
        show(AREA, shrunk["area"]),
        in_errors(AREA, shrunk["area"]),
        show(f"{GAIN_OVER_AVERAGES}, {UNSHRUNK}", unshrunk["gain"]),
        show(f"{AREA}, {UNSHRUNK}", unshrunk["area"]),
        *kept,
        show(f"{GAIN_OVER_AVERAGES}, {STRICT}", strict["gain"]),
        show(f"{AREA}, {STRICT}", strict["area"]),
        show(f"{GAIN_OVER_AVERAGES}, {FORMER}", former["gain"]),
        show(f"{AREA}, {FORMER}", former["area"]),
        Figure(name=TIMES_FORMER, value=shrunk["gain"].value - 3 * former["gain"].value, unit="score"),
        Figure(name="oracle by the same labels", value=float((truth.mean.max(1) - truth.mean[:, best]).mean()), unit="score"),
    ]


def equal_choices(cells: Cells, dataset: Dataset) -> float:
    """Share of the choices, over multipliers, that are the same after `rescale`; one seed of folds."""
    cost, seed = np.arange(1.0, cells.mean.shape[1] + 1), dataset.fold_seeds[0]
    pairs = zip(route_folds(cells, seed), route_folds(rescale(cells), seed), strict=True)
    equal = []
    for one, other in pairs:
        switching = curve.multipliers(one.estimates[SHRUNK], cost, 16)
        lams = np.append(0.0, (switching[1:] + switching[:-1]) / 2)  # at a switching point itself, rounding decides
        choices = [curve.route(each.estimates[SHRUNK], cost, lams * factor).choice for each, factor in ((one, 1.0), (other, 100.0))]
        equal.append(float((choices[0] == choices[1]).mean()))
    return float(np.mean(equal))


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


OWN: dict[str, Callable[[argparse.Namespace], list[Outcome]]] = {"postcard": postcard_router.run, "time": router_time.run}
"""Benchmarks of this project's own routers."""
_COVERED = {COVERED[0.8]: Target(low=0.77, high=0.83), COVERED[0.95]: Target(low=0.94, high=0.97)}
_NO_HARM = _COVERED | {f"{name}, in standard errors": Target(low=-1.0) for name in (GAIN_OVER_AVERAGES, AREA)}
_GECKONUM = TABLES["geckonum"]
DATASETS = {
    "geckonum": Dataset(
        table=_GECKONUM,
        targets={GAIN: Target(low=0.0387), f"{GAIN}, lower bound": ABOVE_ZERO, AREA: Target(low=0.0598)} | _COVERED,
    ),
    "geckonum-raised": Dataset(
        table=_GECKONUM,
        about="0.25 added to the best model",
        change=raise_best,
        targets={KEPT: Target(low=0.95), GAIN_OVER_AVERAGES: Target(low=-0.002)} | _COVERED,
    ),
    "geckonum-sparse": Dataset(
        table=_GECKONUM,
        about="60 % of the cells missing",
        hide=hide_cells,
        targets={GAIN: Target(low=0.02), AREA: Target(low=0.65 * 0.0608)} | _COVERED,
    ),
    "geckonum-shuffled": Dataset(
        table=_GECKONUM,
        about="prompts shuffled against labels",
        change=shuffle_prompts,
        targets={name: Target(low=-0.001, high=0.001) for name in (GAIN_OVER_AVERAGES, AREA)} | _COVERED,
    ),
    "geckonum-200": Dataset(table=_GECKONUM, about="200 labelled prompts", labelled=200, targets={TIMES_FORMER: Target(low=0.0)}),
    "geckonum-scaled": Dataset(
        table=_GECKONUM, about="scores x 100 and shifted", rescaled=True, fold_seeds=(1,), targets={EQUAL: Target(low=0.9999)}
    ),
    "agiqa3k align": Dataset(table=TABLES["agiqa3k align"], targets=_NO_HARM),
    "agiqa3k align + quality": Dataset(table=TABLES["agiqa3k align + quality"], targets=_NO_HARM),
    "tifa160": Dataset(table=TABLES["tifa160"], targets=_NO_HARM),
}


if __name__ == "__main__":
    sys.exit(main())
