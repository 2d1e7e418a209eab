"""Making pools of bundles, and of candidates that were labelled elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool, pool_rows, pool_view
from costroute_rt.engines.bundle.pool_file import ORDER, ROUTER_NAME, PoolCandidate
from costroute_rt.error import ConfigError

_UNMEASURED = ("unmeasured", "preference", ORDER)
"""Metrics of bundles whose means say nothing about other bundles."""


def combine(
    bundles: Sequence[Bundle],
    *,
    others: Mapping[str, float | None] | None = None,
    means: Mapping[str, tuple[float, float]] | None = None,
    metric: str = ORDER,
    candidates: Sequence[str] = (),
    exclude: Sequence[str] = (),
    licenses: Sequence[str] = (),
    prefer: Sequence[str] = (),
) -> Pool:
    """A pool of the candidates of these bundles, which stand in the order of preference, and of candidates without a bundle.

    If all means are in one measured metric, candidates are in their order; else bundle after bundle, in each by its own means.
    others: milliseconds of the candidates without a bundle, by name; None where unknown. means: mean and standard error of candidates in
    `metric`, instead of those of the bundles; used if they cover all candidates. The other arguments are those of `Pool.select`; with
    `prefer`, means give nothing but the order. Raises ConfigError.
    """
    named = _with_aliases(bundles)
    found = [*_own_candidates(named), *(_foreign(name, ms) for name, ms in (others or {}).items())]
    if not found or len({each.name for each in found}) < len(found):
        raise ConfigError("pool", ", ".join(each.name for each in found), "one candidate or more, each with a name of its own")
    metrics = {str(bundle.quality["metric"]) for bundle in bundles}
    if means is not None and all(each.name in means for each in found):
        found = [replace(each, mean=means[each.name][0], standard_error=means[each.name][1]) for each in found]
    else:
        metric = metrics.pop() if len(metrics) == 1 and not others and not metrics & set(_UNMEASURED) else ORDER
    ordered = found if metric == ORDER else sorted(found, key=lambda each: -each.mean)
    chosen = _assemble(named, ordered, metric).select(candidates=candidates, exclude=exclude, licenses=licenses, prefer=prefer)
    if prefer or metric == ORDER:
        count = len(chosen.candidates)
        ranked = [replace(each, mean=1 - index / count, standard_error=0.0) for index, each in enumerate(chosen.candidates)]
        return _assemble(named, ranked, ORDER)
    return _assemble(named, chosen.candidates, metric)


def _with_aliases(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    """The bundles by their names in a pool: the family, with a number for further bundles of one family."""
    named: dict[str, Bundle] = {}
    for bundle in bundles:
        if any(bundle.root == other.root for other in named.values()):
            raise ConfigError("bundle", str(bundle.root), "each bundle once")
        stem = f"{bundle.family}-bundle" if bundle.family == ROUTER_NAME else bundle.family
        tried = (stem, *(f"{stem}-{number}" for number in range(2, len(bundles) + 2)))
        name = next(name for name in tried if name not in named)
        named[name] = replace(bundle, alias=None if name == bundle.family else name)
    return named


def _own_candidates(named: Mapping[str, Bundle]) -> list[PoolCandidate]:
    """The candidates of all bundles, each bundle's in the order of its means; a name that is taken already gets its bundle's before it."""
    found: dict[str, PoolCandidate] = {}
    for alias, bundle in named.items():
        means = bundle.quality["candidates"]
        for row in sorted(bundle.pool, key=lambda row: -means[row["name"]]["mean"]):
            name = str(row["name"])
            unique = name if name not in found else f"{alias}/{name}"
            found[unique] = PoolCandidate(name=unique, bundle=alias, candidate=name, license=bundle.license, **means[name])
    return list(found.values())


def _foreign(name: str, cost_ms: float | None) -> PoolCandidate:
    return PoolCandidate(name=name, bundle=None, candidate=None, license="", mean=0.0, standard_error=0.0, cost_ms=cost_ms)


def _assemble(named: Mapping[str, Bundle], candidates: Iterable[PoolCandidate], metric: str) -> Pool:
    kept = tuple(candidates)
    views = {name: pool_view(bundle, kept, metric) for name, bundle in named.items() if any(each.bundle == name for each in kept)}
    return Pool(
        root=Path(),
        metric=metric,
        bundles=views,
        candidates=kept,
        judged=kept,
        rows=pool_rows(kept, views),
        router=None,
        states_bundle=None,
    )
