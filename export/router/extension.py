"""A router with candidates added by labels of a few prompts; what it says about its own candidates does not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError
from costroute_rt.export.router.addition import Known, fit_addition
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.likeness import distances
from costroute_rt.export.router.twin import find_twin, fit_shift
from costroute_rt.routing.array import Float32Array, FloatArray
from costroute_rt.routing.estimator.addition import Addition
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.extended import Extended, base_of
from costroute_rt.routing.estimator.shift import Shift
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router import Router, describe_pool, pool_difference

MOST_PROMPTS = 1000
"""Prompts without labels of new candidates that are read: they only show how well the others predict each other."""


@dataclass(frozen=True, slots=True)
class Names:
    """The candidates of an extended router, by what they are estimated from."""

    base: tuple[str, ...]
    """Those the estimator was fitted for, in its order."""
    former: tuple[str, ...]
    """Those added before, in the order of the additions."""
    new: tuple[str, ...]

    @classmethod
    def of(cls, router: Router, pool: Sequence[Mapping[str, Any]]) -> Names:
        """For this router and the rows of the pool that it is extended to.

        Raises ConfigError if the pool lacks a candidate of the router, has another one under its name, or has none to add.
        """
        fitted, names = [row["name"] for row in router.pool], [row["name"] for row in pool]
        lacking = [name for name in fitted if name not in names]
        if lacking:
            raise ConfigError("pool", ", ".join(names), f"all candidates of the router that is extended: it lacks {', '.join(lacking)}")
        kept = [next(row for row in pool if row["name"] == name) for name in fitted]
        difference = pool_difference(describe_pool(kept), router.pool)
        if difference is not None:
            raise ConfigError("pool", ", ".join(names), f"the candidates of the router that is extended, but {difference}")
        new = tuple(name for name in names if name not in fitted)
        if not new:
            raise ConfigError("pool", ", ".join(names), "a candidate that the router which is extended does not have")
        if not isinstance(router.estimator, Extended):
            return cls(tuple(fitted), (), new)
        in_order = [fitted[router.estimator.order.index(number)] for number in range(len(fitted))]
        return cls(tuple(in_order[: router.estimator.base.candidates]), tuple(in_order[router.estimator.base.candidates :]), new)

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.base, *self.former, *self.new)


def useful_prompts(cells: Cells, new: Sequence[str], seed: int = 0) -> list[int]:
    """Positions of the prompts to read: all with a label of a new candidate, and at most MOST_PROMPTS others."""
    columns = [cells.candidates.index(name) for name in new if name in cells.candidates]
    anchors = (cells.count[:, columns] > 0).any(1)
    others = np.random.default_rng(seed).permutation(np.flatnonzero(~anchors))[:MOST_PROMPTS]
    return sorted([*np.flatnonzero(anchors).tolist(), *others.tolist()])


def extend_router(
    router: Router, cells: Cells, states: TextStates | None, *, pool: Sequence[Mapping[str, Any]], labels: Mapping[str, Any]
) -> Router:
    """The router with those candidates of `pool` that it lacks, each estimated from the others (see `fit_addition` and `fit_shift`).

    Nothing that it was fitted to is fitted again: the estimates of its own candidates stay bit for bit what they were.

    cells: labels on any prompts of any of the candidates; a new one without labels gets an estimate with a wide error from its settings.
    states: of the prompts of `cells`, if the encoder or the estimator reads them. pool: rows as in `Pool.rows`, in the order of the new
    router. labels: origin of the labels, for the record. Raises ConfigError (see `Names.of`).
    """
    names = Names.of(router, pool)
    base = base_of(router.estimator)
    former = router.estimator.additions if isinstance(router.estimator, Extended) else ()
    others = _Others.read(router, cells, states, names)
    additions: list[Addition | Shift] = list(former)
    averages = [router.average]
    for name in names.new:
        labels_of, variance = _column(cells, name)
        twin = find_twin(pool, name, names.base)
        shift = None if twin is None else fit_shift(labels_of, np.where(others.is_label, others.quality, np.nan), twin)
        if shift is None:
            known = others.toward([_row(pool, each) for each in (name, *names.base)], _costs(cells, router, (name, *names.base)))
            additions.append(fit_addition(known, labels_of, variance))
        else:
            additions.append(shift)
        averages.append(_average(additions[-1], others, router, labels_of))
    order = [names.all.index(row["name"]) for row in pool]
    fitted = [row["name"] for row in router.pool]
    places = [[*fitted, *names.new].index(row["name"]) for row in pool]
    return replace(
        router,
        pool=describe_pool(pool),
        estimator=Extended(base, tuple(additions), tuple(order)),
        average=_join(averages, places),
        evidence=None,  # of the former candidates; there is none about the new ones
        reliability=None if router.reliability is None else router.reliability.extended(places),
        record=_record(router, cells, names.new, pool, labels),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Others:
    """Prompts, and what the labels and the router say about the base's candidates."""

    features: Float32Array
    quality: FloatArray
    is_label: npt.NDArray[np.bool_]
    spread: FloatArray
    center: FloatArray

    @classmethod
    def read(cls, router: Router, cells: Cells, states: TextStates | None, names: Names) -> _Others:
        fitted = [row["name"] for row in router.pool]
        places = [fitted.index(name) for name in names.base]
        labelled = np.stack([_column(cells, name)[0] for name in names.base], axis=1)
        is_label = ~np.isnan(labelled)
        estimated = router.estimate(cells.prompts, states)[0][:, places]
        return cls(
            features=router.encode(cells.prompts, states),
            quality=np.where(is_label, labelled, estimated),
            is_label=is_label,
            spread=router.average.spread[places],
            center=router.average.mean[places],
        )

    def toward(self, rows: Sequence[Mapping[str, Any]], cost_ms: FloatArray) -> Known:
        """For a new candidate; rows, cost_ms: its own first, then those of the others."""
        return Known(
            features=self.features,
            others=self.quality,
            is_label=self.is_label,
            spread=self.spread,
            center=self.center,
            between=distances(rows, cost_ms),
        )


def _row(pool: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(row for row in pool if row["name"] == name)


def _column(cells: Cells, name: str) -> tuple[FloatArray, FloatArray]:
    """Labels and their variances, float64[prompts] each; NaN where there is none."""
    if name not in cells.candidates:
        return np.full(len(cells), np.nan), np.full(len(cells), np.nan)
    place = cells.candidates.index(name)
    return cells.mean[:, place], cells.variance[:, place]


def _costs(cells: Cells, router: Router, names: Sequence[str]) -> FloatArray:
    """float64[names]: milliseconds as labelled now, else as when the router was fitted, 0 where unknown."""
    now = dict(zip(cells.candidates, cells.cost_ms.tolist(), strict=True))
    before = router.record.get("labels", {}).get("candidates", {})
    return np.array([now.get(name) or before.get(name, {}).get("cost_ms") or 0.0 for name in names])


def _average(found: Addition | Shift, others: _Others, router: Router, labels: FloatArray) -> Average:
    """Of one added candidate: its estimate over the prompts that the router was fitted to, not over its anchors."""
    middle = router.features.mean(axis=0, keepdims=True)
    mean, error = found.estimate(middle, others.center[None], np.zeros((1, found.others)))
    own = labels[~np.isnan(labels)]
    spread = own.std() if len(own) > 1 and own.std() > 0 else others.spread.mean()
    return Average(mean, error, np.array([spread]))


def _join(averages: Sequence[Average], order: Sequence[int]) -> Average:
    """The averages one after the other, then in this order."""
    arrays = {name: np.concatenate([each.arrays()[name] for each in averages])[list(order)] for name in averages[0].arrays()}
    return Average.from_saved({}, arrays)


def _record(
    router: Router, cells: Cells, new: Sequence[str], pool: Sequence[Mapping[str, Any]], labels: Mapping[str, Any]
) -> dict[str, Any]:
    """The router's record with the new candidates, and where their labels are from."""
    about = dict(router.record.get("labels", {}))
    rows = dict(about.get("candidates", {}))
    for name in new:
        own = _column(cells, name)[0]
        known = own[~np.isnan(own)]
        ms = float(_costs(cells, router, [name])[0])
        mean = round(float(known.mean()), 5) if len(known) else None
        rows[name] = {"mean": mean, "prompts": len(known), "cost_ms": round(ms, 3) if ms else None}
    ordered = {row["name"]: rows[row["name"]] for row in pool if row["name"] in rows}
    added = {**router.record.get("added", {}), **{name: {**labels, "prompts": rows[name]["prompts"]} for name in new}}
    return {**router.record, "labels": {**about, "candidates": ordered}, "added": added}
