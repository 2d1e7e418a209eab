"""One candidate more for a fitted router, by labels of a few prompts.

    python -m benchmarks.router_new_candidate geckonum    a seventh model, added to a router of six by 40 prompts
    python -m benchmarks.router_new_candidate agiqa3k     a tenth candidate
    python -m benchmarks.router_new_candidate tifa160     a fifth model

Public tables of human scores, as in `benchmarks.router`. Each model in turn is the new one. Prompts are divided into five folds; on four of
them a router is fitted to the other models, the new one is added by labels of 40 prompts drawn at random (`fit-router --extend`), and the
fifth fold is routed at lambda 0. Twice, with other folds and other draws. Compared with

- full labels: a router fitted to all models with all labels of the four folds;
- the others alone: the router without the new model;
- the anchors' average: the new model's mean label, whatever the prompt;
- clusters: the new model's mean label on each of ten clusters of prompts, shrunk towards its average (after UniRoute, arXiv 2502.08773);
- filled in and fitted again: missing labels predicted from the others' by ridge regression, then all candidates fitted anew;
- no labels at all: the new model by its settings, of which these tables have none.

Estimator, settings and shrinkage are those that cross-validation of all models on the four folds gives, for every way alike.

The gain is that over the best single model, chosen in hindsight; the share kept is the gain over that of full labels; the share of the new
model's own gain leaves out of both what the others alone gain. Intervals are 95 %, by a paired bootstrap over prompts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import make_parser, run_benchmark
from benchmarks.router import FOLD_SEEDS, FOLDS, QUICK_PROMPTS
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, interval_figure, log, run_scenario
from benchmarks.score_table import DATA, TABLES, label_table
from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import choose_setting, combine, complete_prompts, losses, predict_folds, split_folds
from costroute_rt.export.router.extension import extend_router
from costroute_rt.export.router.fit import trust_range
from costroute_rt.export.router.grid import DIMENSIONS, ESTIMATORS, Setting, grid_of
from costroute_rt.export.router.shrinkage import calibration_slope
from costroute_rt.routing.array import Float32Array, FloatArray, IntArray
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.prompt_encoder import HashedEncoder
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.router import POOL_FIELDS, Router, describe_pool
from costroute_rt.routing.shrinkage import Shrinkage

ANCHORS = 40
CLUSTERS, PSEUDO = 10, 5.0
ADDED, FULL, OTHERS, AVERAGE, CLUSTERED, REFITTED, UNLABELLED = (
    "added by anchors", "full labels", "the others alone", "the anchors' average", "clusters", "filled in and fitted again", "no labels",
)  # fmt: skip
KEPT, OWN, CHANGED = "share of the gain kept", "share of the new model's own gain", "estimates of the others that changed"
TARGETS: dict[str, Mapping[str, Target]] = {
    "geckonum": {f"{KEPT}, {ADDED}": Target(low=0.70), CHANGED: Target(high=0.0)},
    "agiqa3k align": {CHANGED: Target(high=0.0)},
    "tifa160": {CHANGED: Target(high=0.0)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One model as the new one, on one fold."""

    new: int
    test: IntArray
    estimates: Mapping[str, FloatArray]
    """float64[test prompts, models] by each way; -inf for a model that the router lacks."""
    error: FloatArray
    """float64[test prompts]: standard errors of the new model, added by anchors."""
    guess: tuple[float, float]
    """Average of the new model without labels, and its standard error."""
    changed: int
    """Estimates of other models that adding the new one changed."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("router_new_candidate", __doc__ or "")
    parser.add_argument("dataset", choices=sorted(name.split(" ")[0] for name in TARGETS), help="labels to use")
    parser.add_argument("--anchors", type=int, default=ANCHORS, metavar="N", help="labels of the new model (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="folder of the score tables (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("router_new_candidate", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """The scenario of the dataset; marked as skipped where its files are missing."""
    name = next(each for each in TARGETS if each.split(" ")[0] == args.dataset)
    dataset, seeds = TABLES[name], FOLD_SEEDS[:1] if args.quick else FOLD_SEEDS
    settings = {"labels": dataset.about, "anchors": args.anchors, "encoder": "hashed", "folds": FOLDS, "seeds": len(seeds)}
    scenario = Scenario(name=name, settings=settings, targets=TARGETS[name])
    missing = [file for file in dataset.files if not (args.data / file).is_file()]
    if missing:
        return [
            Outcome(scenario=replace(scenario, targets={}), notes={"skipped": f"skipped: {', '.join(missing)} not found in {args.data}"})
        ]
    return [run_scenario(scenario, lambda _: measure(read(args, name), args.anchors, seeds))]


def read(args: argparse.Namespace, name: str) -> Cells:
    """The prompts with labels of all models."""
    with label_table(TABLES[name].rows(args.data)) as table:
        cells = table.cells()
    cells = replace(cells.select(complete_prompts(cells)), categories=None)
    return cells.select(np.random.default_rng(0).permutation(len(cells))[:QUICK_PROMPTS]) if args.quick else cells


def measure(cells: Cells, anchors: int, seeds: Sequence[int]) -> Measurement:
    """All trials, and their figures."""
    trials = [trial for seed in seeds for trial in run_trials(cells, anchors, seed)]
    return Measurement(figures=[*gain_figures(cells, trials), *error_figures(cells, trials)])


def run_trials(cells: Cells, anchors: int, seed: int) -> Iterator[Trial]:
    fold = split_folds(cells.groups, FOLDS, seed)
    rng = np.random.default_rng(seed)
    features = HashedEncoder().encode(cells.prompts, None)
    for number in range(FOLDS):
        train, test = cells.select(fold != number), np.flatnonzero(fold == number)
        learned = learn(train, features[fold != number])
        texts = [cells.prompts[row] for row in test]
        whole = fit_like(learned, train).estimate(texts, None)[0]
        for new in range(len(cells.candidates)):
            yield run_trial(learned, train, texts, test, whole, new, rng.permutation(len(train))[:anchors])
        log(f"  seed {seed}, fold {number + 1} of {FOLDS}")


def run_trial(
    learned: Learned, train: Cells, texts: Sequence[str], test: IntArray, whole: FloatArray, new: int, anchors: IntArray
) -> Trial:
    """whole: float64[test prompts, models], by a router fitted to all labels. anchors: positions among the training prompts."""
    before = fit_like(learned, only(train, [place for place in range(len(train.candidates)) if place != new]))
    labelled = hide(train, new, anchors)
    added = extend_router(before, labelled, None, pool=rows_of(train), labels={})
    unlabelled = extend_router(before, hide(train, new, anchors[:0]), None, pool=rows_of(train), labels={})
    mean, error, _ = added.estimate(texts, None)
    others = before.estimate(texts, None)[0]
    own = np.delete(mean, new, axis=1)
    labels = train.mean[anchors, new]
    columns = {
        OTHERS: np.full(len(test), -np.inf),
        AVERAGE: np.full(len(test), labels.mean()),
        CLUSTERED: by_clusters(learned.features, anchors, labels, before.encode(texts, None)),
    }
    estimates = {name: np.insert(others, new, column, axis=1) for name, column in columns.items()}
    refitted = fit_like(learned, labelled.fill()).estimate(texts, None)[0]
    estimates |= {ADDED: mean, UNLABELLED: unlabelled.estimate(texts, None)[0], FULL: whole, REFITTED: refitted}
    guess = float(unlabelled.average.mean[new]), float(unlabelled.average.standard_error[new])
    return Trial(new=new, test=test, estimates=estimates, error=error[:, new], guess=guess, changed=int((own != others).sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What routers of a fold share, so that nothing is cross-validated again for each model and each way."""

    reduction: Reduction
    features: Float32Array
    """float32[training prompts, width], reduced."""
    setting: Setting
    shrinkage: Shrinkage
    near: float
    far: float


def learn(cells: Cells, features: Float32Array) -> Learned:
    """The setting that cross-validation chooses, and the shrinkage by its calibration slope, as in `fit_router`."""
    folds = predict_folds(cells, features, None, split_folds(cells.groups, FOLDS, 0), grid_of(ESTIMATORS), DIMENSIONS, lambda _: None)
    lost = {setting: losses(cells, each) for setting, each in folds.by_setting.items()}
    setting = choose_setting(cells, folds.by_setting, lost, ESTIMATORS, np.ones(len(cells), dtype=bool))
    slope = calibration_slope(cells, combine(folds.by_setting, setting), folds.average)
    reduction = Reduction.fit(features, DIMENSIONS)
    reduced = reduction.apply(features).astype(np.float16).astype(np.float32)
    near, far = trust_range(reduced)
    return Learned(reduction=reduction, features=reduced, setting=setting, shrinkage=Shrinkage(slope.factor), near=near, far=far)


def fit_like(learned: Learned, cells: Cells) -> Router:
    """A router for these models and labels."""
    return Router(
        pool=describe_pool(rows_of(cells)),
        encoder=HashedEncoder(),
        reduction=learned.reduction,
        estimator=learned.setting.fit(learned.features, cells.mean, cells.variance),
        average=Average.fit(cells.mean, cells.variance),
        prompts=cells.prompts,
        features=learned.features,
        near=learned.near,
        far=learned.far,
        shrinkage=learned.shrinkage,
        reason="",
    )


def rows_of(cells: Cells) -> list[dict[str, Any]]:
    return [{**dict.fromkeys(POOL_FIELDS), "name": name} for name in cells.candidates]


def only(cells: Cells, places: Sequence[int]) -> Cells:
    """The labels of these models."""
    columns = list(places)
    parts = {name: getattr(cells, name)[:, columns] for name in ("mean", "variance", "count")}
    return replace(cells, candidates=tuple(cells.candidates[place] for place in columns), cost_ms=cells.cost_ms[columns], **parts)


def hide(cells: Cells, new: int, anchors: IntArray) -> Cells:
    """The labels without those of one model on other prompts than the anchors."""
    hidden = np.setdiff1d(np.arange(len(cells)), anchors)
    mean, variance, count = cells.mean.copy(), cells.variance.copy(), cells.count.copy()
    mean[hidden, new], variance[hidden, new], count[hidden, new] = np.nan, np.nan, 0
    return replace(cells, mean=mean, variance=variance, count=count)


def by_clusters(features: Float32Array, anchors: IntArray, labels: FloatArray, wanted: Float32Array) -> FloatArray:
    """float64[wanted prompts]: mean label of the prompt's cluster, with the average counting for PSEUDO labels (spherical k-means)."""
    unit, rng = normalise(features), np.random.default_rng(0)
    centers = unit[rng.permutation(len(unit))[:CLUSTERS]]
    for _ in range(30):
        member = (unit @ centers.T).argmax(1)
        centers = normalise(np.stack([unit[member == each].sum(0) for each in range(len(centers))]))
    own = (unit[anchors] @ centers.T).argmax(1)
    sums = np.bincount(own, labels, minlength=len(centers)) + PSEUDO * labels.mean()
    means = sums / (np.bincount(own, minlength=len(centers)) + PSEUDO)
    return np.asarray(means[(normalise(wanted) @ centers.T).argmax(1)])


def normalise(rows: Float32Array) -> Float32Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def gain_figures(cells: Cells, trials: Sequence[Trial]) -> list[Figure]:
    """Gains over the best single model, means over all trials, and the shares of them that are kept."""
    best = int(cells.mean.mean(0).argmax())
    gains = {}
    for name in trials[0].estimates:
        total, count = np.zeros(len(cells)), np.zeros(len(cells))
        for trial in trials:
            scored = cells.mean[trial.test]
            total[trial.test] += scored[np.arange(len(scored)), trial.estimates[name].argmax(1)] - scored[:, best]
            count[trial.test] += 1
        gains[name] = total / count
    figures = [interval_figure(f"gain, {name}", curve.bootstrap_mean(each, cells.groups), "score") for name, each in gains.items()]
    ways = [name for name in gains if name not in (FULL, OTHERS)]
    if gains[FULL].mean() <= 0 or gains[FULL].mean() <= gains[OTHERS].mean():  # nothing of which to keep a share
        return figures

    def shares(weight: FloatArray) -> dict[str, float]:
        mean = {name: float(weight @ each) for name, each in gains.items()}
        kept = {f"{KEPT}, {name}": mean[name] / mean[FULL] for name in (*ways, OTHERS)}
        return {**kept, **{f"{OWN}, {name}": (mean[name] - mean[OTHERS]) / (mean[FULL] - mean[OTHERS]) for name in ways}}

    return [*figures, *(interval_figure(name, each, "share") for name, each in curve.bootstrap(shares, cells.groups).items())]


def error_figures(cells: Cells, trials: Sequence[Trial]) -> list[Figure]:
    """How far the added model's estimates are from those by full labels, beside their stated errors; and whether the others' changed."""
    away = {
        name: [each.estimates[name][:, each.new] - each.estimates[FULL][:, each.new] for each in trials] for name in (ADDED, UNLABELLED)
    }
    within = np.concatenate([np.abs(one) <= 1.2816 * each.error for one, each in zip(away[ADDED], trials, strict=True)]).mean()
    averages = cells.mean.mean(0)
    guessed = np.array([abs(each.guess[0] - averages[each.new]) / each.guess[1] for each in trials])
    rms = {name: float(np.sqrt(np.mean(np.concatenate(each) ** 2))) for name, each in away.items()}
    return [
        *(Figure(name=f"distance from estimates by full labels, {name}", value=value, unit="score") for name, value in rms.items()),
        Figure(name="within the stated 80 % of estimates by full labels", value=float(within), unit="share"),
        Figure(name="without labels: averages within two stated errors", value=float((guessed <= 2).mean()), unit="share"),
        Figure(name=CHANGED, value=float(sum(each.changed for each in trials)), unit="count"),
    ]


if __name__ == "__main__":
    sys.exit(main())
