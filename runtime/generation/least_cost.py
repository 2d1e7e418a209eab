"""The least that a request may cost, whatever its prompt: what cannot fit is refused before the prompt is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from costroute_rt.family.resources import Resources
from costroute_rt.generation.planner import Plans, plan_calls, predict_costs
from costroute_rt.generation.queue import Forecast
from costroute_rt.request import Request
from costroute_rt.route import Cost
from costroute_rt.routing.choice import Limit, find_trial

_KEPT_S = 0.05
"""How long predicted costs are used again: many requests may come at once, and most of them are refused."""
_MOST_KINDS = 64
_SHORT = "?"
"""A prompt that takes no longer to encode than any other."""


def find_least_cost(resources: Resources, request: Request, plans: Plans, forecast: Forecast) -> Cost:
    """The cost of the fastest candidate that fits; raises BudgetError if none does, unless the fastest is wanted.

    forecast: as for `route_request`, which would raise the same error.
    """
    limit, costs = Limit(request.max_ms, forecast.slack_ms), dict[str, Cost]()
    for name in sorted(plans, key=lambda name: resources.costs.profiled_ms(plans[name])):  # most often the first one fits
        costs |= predict_costs(resources, Plans({name: plans[name]}), forecast)
        if limit.fits(costs[name]) or request.or_fastest:
            return costs[name]
    return costs[find_trial(costs, limit)]


class _Kept(NamedTuple):
    """Costs that were predicted lately, without a wait, the lowest first."""

    until_s: float
    resident: Sequence[str]
    """The engines that were loaded then."""
    costs: Mapping[str, Cost]


class LeastCosts:
    """Finds the least cost of requests without looking at their prompts, in a fraction of a millisecond; safe in several threads."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._plans: dict[tuple[object, ...], Plans] = {}
        self._kept: dict[tuple[object, ...], _Kept] = {}

    def find(self, request: Request, forecast: Forecast, *, is_checked: bool) -> Cost:
        """As `find_least_cost`. is_checked: whether to raise BudgetError. Also raises ConfigError, EngineError."""
        costs, limit = self._costs(request), Limit(request.max_ms, forecast.slack_ms)
        if not is_checked or request.or_fastest:
            return next(iter(costs.values()))
        for cost in costs.values():
            spread_ms = math.hypot(cost.spread_ms, forecast.queue_spread_ms) - cost.spread_ms
            if limit.allows(forecast.queue_ms + spread_ms, cost.own_p95_ms):
                return cost
        wait_ms, spread_ms = forecast.queue_ms, forecast.queue_spread_ms
        waiting = {name: replace(cost, queue_ms=wait_ms, queue_spread_ms=spread_ms) for name, cost in costs.items()}
        return costs[find_trial(waiting, limit)]

    def _costs(self, request: Request) -> Mapping[str, Cost]:
        strength = request.used_strength
        kind = (request.candidate, request.scheduler, request.count, request.height, request.width, strength, request.max_ms is None)
        now_s, resident = self._resources.clock(), self._resources.engines.resident()
        kept = self._kept.get(kind)
        if kept is None or now_s > kept.until_s or set(kept.resident) != set(resident):
            found = predict_costs(self._resources, self._plan(kind, request))
            kept = _Kept(now_s + _KEPT_S, resident, dict(sorted(found.items(), key=lambda pair: pair[1].own_p95_ms)))
            self._kept[kind] = kept
        return kept.costs

    def _plan(self, kind: tuple[object, ...], request: Request) -> Plans:
        found = self._plans.get(kind)
        if found is None:
            if len(self._plans) >= _MOST_KINDS:
                self._plans.clear()
                self._kept.clear()
            found = self._plans[kind] = plan_calls(self._resources, replace(request, prompt=_SHORT, negative_prompt=None))
        return found
