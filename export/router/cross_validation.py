"""Which estimator to trust, and what routing by it gains: predictions on prompts that took no part in the fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import FloatArray, IntArray, Interval, best_single, bootstrap_mean, hull_members, route
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.reduction import Reduction

Float32Array = npt.NDArray[np.float32]
Progress = Callable[[str], None]

GRID: dict[str, tuple[float, ...]] = {"knn": (15, 30, 60), "linear": (0.1, 0.3, 1, 3, 10, 30, 100), "transformer": (64,)}
"""Settings that are tried: neighbours, ridge penalties on features of mean norm 1, and a width."""
_NAMES = {"knn": "k", "linear": "alpha", "transformer": "width"}
ESTIMATORS = ("knn", "linear", "mean")
"""What is tried where nothing else is asked for: needs neither torch nor text states."""
ALL_ESTIMATORS = (*ESTIMATORS, "transformer")
DIMENSIONS = 256
_TRADEOFFS = 12
LEAST_PROMPTS = 20
"""With fewer prompts that every candidate is labelled for, nothing is learned from them but averages."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An estimator with its settings: one member, or several that are averaged."""

    members: tuple[tuple[str, float], ...]

    @property
    def kind(self) -> str:
        return self.members[0][0] if len(self.members) == 1 else "mean"

    def __str__(self) -> str:
        words = [f"{kind} ({_NAMES[kind]} {value:g})" for kind, value in self.members]
        return words[0] if len(words) == 1 else "mean of " + " and ".join(words)

    def fit(
        self,
        features: Float32Array,
        mean: FloatArray,
        variance: FloatArray,
        states: TextStates | None = None,
        groups: IntArray | None = None,
    ) -> Estimator:
        """The estimator, fitted; arrays as `Estimator` fits take them.

        states, groups: of the same prompts, for a transformer. Raises BackendError for one where torch is not installed.
        """
        fitted: list[Estimator] = []
        for kind, value in self.members:
            if kind == "knn":
                fitted.append(Knn.fit(features, mean, variance, k=int(value)))
            elif kind == "linear":
                fitted.append(Linear.fit(features, mean, variance, alpha=value))
            elif states is None:
                raise ConfigError("states", None, "the prompts' text states, which a transformer reads")
            else:
                from costroute_rt.export.router.transformer import fit_transformer

                fitted.append(fit_transformer(states, mean, variance, groups=groups, width=int(value)))
        return fitted[0] if len(fitted) == 1 else Mean(tuple(fitted))


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """What was found out on held-out folds."""

    chosen: Setting
    """By the losses over all folds."""
    losses: dict[str, float]
    """Mean of `losses` by the setting's name, best first."""
    estimate: FloatArray
    """float64[prompts, candidates]: each fold's predictions, by the setting that the other folds' losses chose."""
    fold: IntArray
    gain: Interval
    """Of routing by `estimate` over the best constant choice (see `gains`)."""
    best_single: str
    """The candidate with the best mean label."""
    complete: npt.NDArray[np.bool_]
    """Prompts labelled for every candidate: those the gain is measured on."""
    leave_category_out: Interval | None = None
    """The same gain where each fold is a whole category, with the chosen setting; None where there are no two categories."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for the router's manifest."""
        return {
            "folds": int(self.fold.max()) + 1,
            "chosen": str(self.chosen),
            "gain": self.gain.to_json(),
            "gain_over": self.best_single,
            "prompts": int(self.complete.sum()),
            "leave_category_out": None if self.leave_category_out is None else self.leave_category_out.to_json(),
            "losses": {name: float(f"{loss:.6g}") for name, loss in self.losses.items()},
        }


def cross_validate(
    cells: Cells,
    features: Float32Array,
    *,
    states: TextStates | None = None,
    estimators: Sequence[str] = ESTIMATORS,
    folds: int = 5,
    seed: int = 0,
    dimensions: int = DIMENSIONS,
    progress: Progress = lambda _: None,
) -> CrossValidation:
    """Chooses among the estimators asked for, and measures what routing by the choice gains.

    features: float32[prompts, width], unreduced; states: of the same prompts, for a transformer. Prompts of equal text share a fold. The
    reduction, the fill-in of missing cells and the estimators see the training folds only, and each fold's setting is chosen by the
    other folds' losses, so that the gain is none of the luck of choosing. Raises ConfigError for an unknown estimator, or too few
    prompts (`can_learn` says beforehand).
    """
    settings = grid_of(estimators)
    if not can_learn(cells):
        raise ConfigError("prompts labelled for every candidate", int(complete_prompts(cells).sum()), f"{LEAST_PROMPTS} or more")
    fold = split_folds(cells.groups, folds, seed)
    predicted = predict_folds(cells, features, states, fold, settings, dimensions, progress)
    lost = {setting: losses(cells, each) for setting, each in predicted.items()}
    chosen = choose_setting(cells, predicted, lost, estimators, np.ones(len(cells), dtype=bool))
    estimate = np.empty_like(cells.mean)
    for number in range(int(fold.max()) + 1):
        test = fold == number
        estimate[test] = combine(predicted, choose_setting(cells, predicted, lost, estimators, ~test))[test]
    complete = complete_prompts(cells)
    found = {str(setting): float(each.mean()) for setting, each in lost.items()}
    found[str(chosen)] = float(losses(cells, combine(predicted, chosen)).mean())
    return CrossValidation(
        chosen=chosen,
        losses=dict(sorted(found.items(), key=lambda row: row[1])),
        estimate=estimate,
        fold=fold,
        gain=measure_gain(cells.select(complete), estimate[complete], seed),
        best_single=cells.candidates[best_single(cells.cost_ms, cells.mean[complete].mean(0))],
        complete=complete,
        leave_category_out=_leave_category_out(cells, features, states, chosen, dimensions, seed, progress),
    )


def grid_of(estimators: Sequence[str]) -> list[Setting]:
    """Every single setting that the estimators asked for need; raises ConfigError for an unknown name."""
    unknown = [name for name in estimators if name not in ALL_ESTIMATORS]
    if unknown or not estimators:
        raise ConfigError("estimator", ", ".join(unknown), "one of " + ", ".join(ALL_ESTIMATORS))
    kinds = [kind for kind in GRID if kind in estimators or ("mean" in estimators and kind in ESTIMATORS)]
    return [Setting(((kind, value),)) for kind in kinds for value in GRID[kind]]


def complete_prompts(cells: Cells) -> npt.NDArray[np.bool_]:
    """bool[prompts]: whether every candidate was labelled, not filled in."""
    return np.asarray((cells.count > 0).all(1))


def can_learn(cells: Cells) -> bool:
    """Whether there are two candidates, and enough prompts of different text labelled for all."""
    texts = len(np.unique(cells.groups[complete_prompts(cells)]))
    return len(cells.candidates) > 1 and texts >= LEAST_PROMPTS


def split_folds(groups: IntArray, folds: int, seed: int) -> IntArray:
    """int64[prompts]: a fold for each group, of nearly equal numbers of groups."""
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
) -> dict[Setting, FloatArray]:
    """Each setting's predictions of every prompt, float64[prompts, candidates], made without the prompt's fold."""
    found = {setting: np.empty_like(cells.mean) for setting in settings}
    numbers = np.unique(fold)
    for done, number in enumerate(numbers, 1):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        known = cells.select(train).fill()
        reduction = Reduction.fit(features[train], dimensions)
        seen, unseen = reduction.apply(features[train]), reduction.apply(features[test])
        read, unread = (None, None) if states is None else (states.select(train), states.select(test))
        for setting in settings:
            estimator = setting.fit(seen, known.mean, known.variance, read, known.groups)
            found[setting][test] = estimator.estimate(unseen, unread)[0]
        progress(f"fold {done} of {len(numbers)}")
    return found


def losses(cells: Cells, predicted: FloatArray) -> FloatArray:
    """float64[prompts]: what settings are compared by, lower is better.

    With costs, the gains lost, on prompts labelled for every candidate: errors would mostly tell how well candidates are judged that no
    tradeoff would choose. Without costs, the squared errors, which are less noisy than the gain of the one choice there is.
    """
    if not cells.has_cost:
        return squared_errors(cells, predicted)
    complete, found = complete_prompts(cells), np.zeros(len(cells))
    found[complete] = -gains(cells.select(complete), predicted[complete])
    return found


def squared_errors(cells: Cells, predicted: FloatArray) -> FloatArray:
    """float64[prompts]: how wrong the differences between a prompt's candidates are, which is all that routing reads.

    Each cell weighs 1 / (its noise + the variance that is not noise), and the weighted mean error of a prompt is taken off first.
    """
    known = cells.count > 0
    noise = np.where(known, cells.variance, 0)
    centred = cells.mean - np.nanmean(cells.mean, axis=0)
    signal = max(float((centred[known] ** 2).mean() - noise[known].mean()), float((centred[known] ** 2).mean()) / 100, 1e-12)
    weight = np.where(known, 1 / (noise + signal if cells.has_noise else np.ones_like(noise)), 0)
    wrong = np.where(known, predicted - cells.mean, 0)
    total = np.maximum(weight.sum(1, keepdims=True), 1e-300)
    wrong = wrong - (weight * wrong).sum(1, keepdims=True) / total
    return np.asarray((weight * wrong**2).sum(1) / weight[known].mean(), dtype=np.float64)


def combine(predicted: dict[Setting, FloatArray], setting: Setting) -> FloatArray:
    """A setting's predictions; a mean's from its members'."""
    return np.asarray(np.mean([predicted[Setting((member,))] for member in setting.members], axis=0))


def choose_setting(
    cells: Cells,
    predicted: dict[Setting, FloatArray],
    lost: dict[Setting, FloatArray],
    estimators: Sequence[str],
    rows: npt.NDArray[np.bool_],
) -> Setting:
    """The setting that loses least over these prompts; a mean is that of the best of two kinds or more. lost: `losses` of each setting."""
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
    """Multipliers a user may mean, in quality per millisecond: 0, and those at which the best single candidate changes, and between.

    Only 0 where no cost is known, or where the cheapest candidate is the best.
    """
    quality = np.nanmean(cells.mean, axis=0)
    members = hull_members(cells.cost_ms, quality) if cells.has_cost else []
    if len(members) < 2:
        return np.zeros(1)
    slopes = np.diff(quality[members]) / np.diff(cells.cost_ms[members])
    return np.concatenate([[0.0], np.geomspace(slopes.min() / 2, slopes.max() * 2, _TRADEOFFS)])


def gains(cells: Cells, estimate: FloatArray) -> FloatArray:
    """float64[prompts]: value of the routed choice less that of the best constant choice, value = label - lambda * cost.

    The mean over `tradeoffs`; where there are no costs, plainly the gain over the best single candidate. The best constant choice is
    the best in hindsight, on these very labels.
    """
    rows, total, lams = np.arange(len(cells)), np.zeros(len(cells)), tradeoffs(cells)
    for lam, choice in zip(lams, route(estimate, cells.cost_ms, lams).choice, strict=True):
        value = cells.mean - lam * cells.cost_ms
        total += value[rows, choice] - value[:, int(value.mean(0).argmax())]
    return np.asarray(total / len(lams))


def measure_gain(cells: Cells, estimate: FloatArray, seed: int = 0) -> Interval:
    """The mean gain with its interval; cells: complete."""
    return bootstrap_mean(gains(cells, estimate), cells.groups, seed=seed)


def _leave_category_out(
    cells: Cells,
    features: Float32Array,
    states: TextStates | None,
    setting: Setting,
    dimensions: int,
    seed: int,
    progress: Progress,
) -> Interval | None:
    if cells.categories is None or len(set(cells.categories)) < 2:
        return None
    names = sorted(set(cells.categories))
    fold = np.array([names.index(name) for name in cells.categories], dtype=np.int64)
    singles = [Setting((member,)) for member in setting.members]
    if len(cells) - np.bincount(fold).max() < LEAST_PROMPTS:
        return None
    predicted = predict_folds(cells, features, states, fold, singles, dimensions, lambda text: progress(f"categories, {text}"))
    estimate = combine(predicted, setting)
    complete = complete_prompts(cells)
    return measure_gain(cells.select(complete), estimate[complete], seed)
