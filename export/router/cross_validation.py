"""Which estimator to use, and how much routing by it gains: predictions for prompts that took no part in the fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Interval, best_single, bootstrap_mean, hull_members, route
from costroute_rt.export.router.grid import USUAL, FitOptions, Setting, grid_of
from costroute_rt.export.router.kinds import find_categories, find_kinds
from costroute_rt.export.router.missing import unbiased_labels
from costroute_rt.export.router.shrinkage import Slope, calibration_slope, cell_weights, centre
from costroute_rt.export.router.unfamiliar import Apart
from costroute_rt.routing.array import Float32Array, FloatArray, IntArray
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.shrinkage import Shrinkage

Progress = Callable[[str], None]

_TRADEOFFS = 12
LEAST_PROMPTS = 20
"""With fewer prompts labelled for two candidates or more, only averages are learned."""


@dataclass(frozen=True, slots=True)
class Folds:
    """Predictions for every prompt, float64[prompts, candidates], fitted without the prompt's fold."""

    by_setting: dict[Setting, FloatArray]
    average: FloatArray
    """The averages of the other folds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """Results on held-out folds."""

    chosen: Setting
    """The setting with the smallest losses over all folds."""
    losses: dict[str, float]
    """Mean of `losses` of each setting, by its name, best first."""
    estimate: FloatArray
    """float64[prompts, candidates]: predictions for each fold, by the setting that the losses of the other folds chose; not shrunk."""
    average: FloatArray
    """float64[prompts, candidates]: the averages of the other folds."""
    fold: IntArray
    slope: Slope
    """How much of the prompt's effect in `estimate` is real."""
    gain: Interval
    """Gain of routing by `estimate` over the best constant choice (see `gains`)."""
    best_single: str
    """The candidate with the best mean label."""
    apart: Apart | None = None
    """Predictions by the chosen setting without the prompt's whole kind; None where `find_kinds` finds none."""
    leave_category_out: Interval | None = None
    """The gain where each fold is a whole category, with the chosen setting; None without two categories."""

    def shrunk(self, shrinkage: Shrinkage) -> tuple[FloatArray, FloatArray | None]:
        """Predictions with effects of the prompt that count as in a router, float64[prompts, candidates].

        The second ones are those without the prompt's whole kind; None without kinds.
        """
        near = self.average + shrinkage.near * (self.estimate - self.average)
        if self.apart is None:
            return near, None
        return near, self.apart.average + shrinkage.far * (self.apart.estimate - self.apart.average)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the router's manifest."""
        return {
            "folds": int(self.fold.max()) + 1,
            "chosen": str(self.chosen),
            "shrinkage": self.slope.to_json(),
            "gain": self.gain.to_json(),
            "gain_over": self.best_single,
            "prompts": len(self.fold),
            "leave_category_out": None if self.leave_category_out is None else self.leave_category_out.to_json(),
            "losses": {name: float(f"{loss:.6g}") for name, loss in self.losses.items()},
        }


def cross_validate(
    cells: Cells,
    features: Float32Array,
    *,
    states: TextStates | None = None,
    options: FitOptions = USUAL,
    progress: Progress = lambda _: None,
) -> CrossValidation:
    """Chooses an estimator, and measures the gain of routing by it.

    features: float32[prompts, width], unreduced; states: of the same prompts, for a transformer. Prompts of equal text share a fold. The
    reduction, the fill-in of missing cells and the estimators see the training folds only. Each fold's setting is chosen by the losses
    of the other folds, so the choice does not inflate the gain. Raises ConfigError for too few prompts (see `can_learn`).
    """
    if not can_learn(cells):
        labelled = int(comparable_prompts(cells).sum())
        raise ConfigError("prompts labelled for two candidates or more", labelled, f"{LEAST_PROMPTS} or more")
    fold = split_folds(cells.groups, options.folds, options.seed)
    folds = predict_folds(cells, features, states, fold, grid_of(options.estimators), options.dimensions, progress)
    predicted = folds.by_setting
    lost = {setting: losses(cells, each) for setting, each in predicted.items()}
    chosen = choose_setting(cells, predicted, lost, options.estimators, np.ones(len(cells), dtype=bool))
    estimate = np.empty_like(cells.mean)
    for number in range(int(fold.max()) + 1):
        test = fold == number
        estimate[test] = combine(predicted, choose_setting(cells, predicted, lost, options.estimators, ~test))[test]
    kinds, categories = find_kinds(cells, options.seed), find_categories(cells)
    apart = _leave_out(kinds, cells, features, states, chosen, options, progress)
    by_category = apart
    if kinds is None or not np.array_equal(kinds, categories if categories is not None else ()):
        by_category = _leave_out(categories, cells, features, states, chosen, options, progress)
    found = {str(setting): float(each.mean()) for setting, each in lost.items()}
    found[str(chosen)] = float(losses(cells, combine(predicted, chosen)).mean())
    return CrossValidation(
        chosen=chosen,
        losses=dict(sorted(found.items(), key=lambda row: row[1])),
        estimate=estimate,
        average=folds.average,
        fold=fold,
        slope=calibration_slope(cells, estimate, folds.average),
        gain=measure_gain(cells, estimate, options.seed),
        best_single=cells.candidates[best_single(cells.cost_ms, np.nanmean(cells.mean, axis=0))],
        apart=apart,
        leave_category_out=None if by_category is None else measure_gain(cells, by_category.estimate, options.seed),
    )


def complete_prompts(cells: Cells) -> npt.NDArray[np.bool_]:
    """bool[prompts]: whether the prompt has a label of its own for every candidate."""
    return np.asarray((cells.count > 0).all(1))


def comparable_prompts(cells: Cells) -> npt.NDArray[np.bool_]:
    """bool[prompts]: whether the prompt is labelled for two candidates or more, so that it says which is better."""
    return np.asarray((cells.count > 0).sum(1) > 1)


def can_learn(cells: Cells) -> bool:
    """Whether enough prompts of different text are labelled for two candidates or more."""
    return len(np.unique(cells.groups[comparable_prompts(cells)])) >= LEAST_PROMPTS


def split_folds(groups: IntArray, folds: int, seed: int) -> IntArray:
    """int64[prompts]: the fold of each prompt; a group is never split, and folds have nearly equal numbers of groups."""
    members = np.unique(groups, return_inverse=True)[1].ravel()
    shuffled = np.random.default_rng(seed).permutation(int(members.max()) + 1) % folds
    return np.asarray(shuffled[members], dtype=np.int64)


def predict_folds(
    cells: Cells,
    features: Float32Array,
    states: TextStates | None,
    fold: IntArray,
    settings: Sequence[Setting],
    dimensions: int,
    progress: Progress,
) -> Folds:
    """Each setting's predictions for every prompt, fitted without the prompt's fold."""
    found, average = {setting: np.empty_like(cells.mean) for setting in settings}, np.empty_like(cells.mean)
    numbers = np.unique(fold)
    for done, number in enumerate(numbers, 1):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        known = cells.select(train).fill()
        average[test] = Average.fit(known.mean, known.variance).mean
        reduction = Reduction.fit(features[train], dimensions)
        seen, unseen = reduction.apply(features[train]), reduction.apply(features[test])
        read, unread = (None, None) if states is None else (states.select(train), states.select(test))
        for setting in settings:
            estimator = setting.fit(seen, known.mean, known.variance, read, known.groups)
            found[setting][test] = estimator.predict(unseen, unread)
        progress(f"fold {done} of {len(numbers)}")
    return Folds(found, average)


def losses(cells: Cells, predicted: FloatArray) -> FloatArray:
    """float64[prompts]: the measure that settings are compared by, lower is better.

    With costs, the negative gains: squared errors would mostly measure candidates that no trade-off would choose. Without costs there is
    one choice only, and squared errors are less noisy than its gain.
    """
    return -gains(cells, predicted) if cells.has_cost else squared_errors(cells, predicted)


def squared_errors(cells: Cells, predicted: FloatArray) -> FloatArray:
    """float64[prompts]: squared errors of the differences between a prompt's candidates, which are all that routing depends on.

    Cells are weighted by `cell_weights`; a prompt's weighted mean error is subtracted first.
    """
    weight = cell_weights(cells)
    return np.asarray((weight * centre(np.where(weight > 0, predicted - cells.mean, 0.0), weight) ** 2).sum(1), dtype=np.float64)


def combine(predicted: dict[Setting, FloatArray], setting: Setting) -> FloatArray:
    """A setting's predictions; those of a mean are computed from its members'."""
    return np.asarray(np.mean([predicted[Setting((member,))] for member in setting.members], axis=0))


def choose_setting(
    cells: Cells,
    predicted: dict[Setting, FloatArray],
    lost: dict[Setting, FloatArray],
    estimators: Sequence[str],
    rows: npt.NDArray[np.bool_],
) -> Setting:
    """The setting with the least loss over these prompts; a mean is one of the best settings of two kinds or more.

    lost: `losses` of each setting.
    """
    best = [
        min((setting for setting in lost if setting.kind == kind), key=lambda setting: float(lost[setting][rows].mean()))
        for kind in dict.fromkeys(setting.kind for setting in lost)
    ]
    options = {setting: float(lost[setting][rows].mean()) for setting in best if setting.kind in estimators}
    if "mean" in estimators:
        for several in (each for count in range(2, len(best) + 1) for each in combinations(best, count)):
            mean = Setting(tuple(setting.members[0] for setting in several))
            options[mean] = float(losses(cells, combine(predicted, mean))[rows].mean())
    return min(options, key=lambda setting: options[setting])


def tradeoffs(cells: Cells) -> FloatArray:
    """Realistic multipliers, in quality per millisecond: 0, and the range in which the best single candidate changes.

    Only 0 if no cost is known, or if the cheapest candidate is the best.
    """
    quality = np.nanmean(cells.mean, axis=0)
    members = hull_members(cells.cost_ms, quality) if cells.has_cost else []
    if len(members) < 2:
        return np.zeros(1)
    slopes = np.diff(quality[members]) / np.diff(cells.cost_ms[members])
    return np.concatenate([[0.0], np.geomspace(slopes.min() / 2, slopes.max() * 2, _TRADEOFFS)])


def gains(cells: Cells, estimate: FloatArray) -> FloatArray:
    """float64[prompts]: value of the routed choice minus that of the best constant choice, where value = label - lambda * cost.

    The mean over `tradeoffs`; without costs, the gain over the best single candidate. The best constant choice is the best in
    hindsight, on these same labels. Missing labels are replaced as in `unbiased_labels`.
    """
    rows, total, lams, labels = np.arange(len(cells)), np.zeros(len(cells)), tradeoffs(cells), unbiased_labels(cells)
    for lam, choice in zip(lams, route(estimate, cells.cost_ms, lams).choice, strict=True):
        value = labels - lam * cells.cost_ms
        total += value[rows, choice] - value[:, int(value.mean(0).argmax())]
    return np.asarray(total / len(lams))


def measure_gain(cells: Cells, estimate: FloatArray, seed: int = 0) -> Interval:
    """The mean gain with its interval."""
    return bootstrap_mean(gains(cells, estimate), cells.groups, seed=seed)


def _leave_out(
    kinds: IntArray | None,
    cells: Cells,
    features: Float32Array,
    states: TextStates | None,
    setting: Setting,
    options: FitOptions,
    progress: Progress,
) -> Apart | None:
    """Predictions where each fold is a whole kind of prompts; None without kinds."""
    if kinds is None:
        return None
    singles = [Setting((member,)) for member in setting.members]
    folds = predict_folds(cells, features, states, kinds, singles, options.dimensions, lambda text: progress(f"kinds of prompts, {text}"))
    return Apart(kinds=kinds, estimate=combine(folds.by_setting, setting), average=folds.average)
