"""Routes requests: lists the calls of each candidate, predicts their cost, and chooses."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from costroute_rt.call import Call, Stage
from costroute_rt.candidate import Candidate
from costroute_rt.cost.allocation import Allocation, FloatArray, allocate
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.error import BudgetError, ConfigError, EngineError, PromptError, Reason
from costroute_rt.family.resources import Resources
from costroute_rt.generation.queue import Forecast, Ticket
from costroute_rt.judgement import Judgement
from costroute_rt.request import Request
from costroute_rt.route import Cost, Option, Route
from costroute_rt.routing.choice import FASTEST, Equal, Limit, choose, explain

NO_BUNDLE = "it has no bundle here"
NO_WAIT = Forecast()

_GUIDED_FIRST = 1000.0
"""What guidance counts for a prompt that has a negative prompt, relative to all differences of quality."""


class Plans(dict[str, Sequence[Call]]):
    """Calls by name of the candidate, in the pool's order."""

    def __init__(self, calls: Mapping[str, Sequence[Call]], unfit: Mapping[str, str] | None = None) -> None:
        """unfit: why other candidates cannot serve the request."""
        super().__init__(calls)
        self.unfit = dict(unfit or {})


def plan_calls(resources: Resources, request: Request) -> Plans:
    """The calls of each candidate that the request allows, and why some of these cannot serve it.

    Candidates without a bundle count only if none has one. Raises ConfigError for an unknown candidate, and where none is left the error
    of the first, if possible one about its engines: then the request can be served once they are built.
    """
    allowed = resources.candidates(request)
    wanted = [each for each in allowed if each.has_bundle] or allowed
    plans, unfit = dict[str, Sequence[Call]](), {each.name: NO_BUNDLE for each in allowed if each not in wanted}
    problems, limits = list[ConfigError | EngineError | PromptError](), dict[str, int]()
    for candidate in wanted:
        try:
            _check_stated(resources, candidate, request)
            calls = resources.calls(candidate, request)
            if (least := resources.find_larger_limit(calls, request.count)) is not None:
                limits[candidate.name] = least
                raise _memory_error(resources, least)
            plans[candidate.name] = calls
        except (ConfigError, EngineError, PromptError) as error:
            problems.append(error)
            unfit[candidate.name] = error.problem if isinstance(error, EngineError) else str(error)
    if not plans:
        if limits:
            raise _memory_error(resources, min(limits.values()))
        raise next((each for each in problems if isinstance(each, EngineError)), problems[0])
    return Plans(plans, unfit)


def _memory_error(resources: Resources, least_bytes: int) -> ConfigError:
    limit = resources.engines.limit
    found = "none" if limit is None else f"{limit.max_bytes / 1e6:.0f} MB"
    return ConfigError("max_memory", found, f"{math.ceil(least_bytes / 1e6)} MB or more for its engines")


def _check_stated(resources: Resources, candidate: Candidate, request: Request) -> None:
    """Raises ConfigError for a budget that nothing can be compared with."""
    if not candidate.has_bundle and request.max_ms is not None and resources.stated_ms.get(candidate.name) is None:
        raise ConfigError("max_ms", request.max_ms, f"no budget: {candidate.name} has no bundle, and how long it takes is unknown")


def route_request(resources: Resources, request: Request, plans: Plans, judgement: Judgement, forecast: Forecast) -> Route:
    """Choose among the candidates in `plans`; raises BudgetError if none fits.

    forecast: what the requests in the queue mean for this one: they come first, or must not come too late.
    """
    options, limit = list_options(resources, plans, judgement, forecast), Limit(request.max_ms, forecast.slack_ms)
    strict = judgement.at(_penalty(resources, {each.candidate.name: each.ms for each in options if limit.fits(each.cost)}, request.lam))
    if strict is not judgement:
        judgement, options = strict, list_options(resources, plans, strict, forecast)
    found = choose(
        request.prompt,
        options,
        max_ms=request.max_ms,
        slack_ms=forecast.slack_ms,
        lam=request.lam,
        tolerance=request.tolerance,
        or_fastest=request.or_fastest,
        prefers_guided=request.has_negative_prompt,
        judgement=judgement,
        equal=_equality(resources, judgement),
    )
    unfit = plans.unfit if isinstance(plans, Plans) else {}
    return replace(found, unfit=unfit, scheduler=resources.scheduler_title(found.chosen, request.scheduler))


def route_arrival(
    resources: Resources, request: Request, plans: Plans, judgement: Judgement, ticket: Ticket, forecast: Callable[[], Forecast]
) -> Route:
    """`route_request` for a new request, with what it has to wait for.

    One that fits nowhere but is made all the same (`or_fastest`) delays none that was accepted before: if need be, it loses its place.
    forecast: returns what the requests in the queue mean for this one with its ticket as it is.
    """
    found = forecast()
    route = route_request(resources, request, plans, judgement, found)
    if route.option.fits or route.option.ms - route.option.cost.queue_ms <= found.slack_ms:
        return route
    ticket.deadline_s = math.inf
    return route_request(resources, request, plans, judgement, forecast())


def check_batch(resources: Resources, plans: Plans, prompts: int, total_ms: float) -> None:
    """Raises BudgetError if not even the fastest candidates finish so many prompts in `total_ms`, whatever the prompts are."""
    _batch_ms(predict_costs(resources, plans), prompts, total_ms)


def route_batch(
    resources: Resources,
    judged: Sequence[tuple[str, Judgement]],
    plans: Plans,
    total_ms: float,
    *,
    or_fastest: bool,
    prefers_guided: bool = False,
    scheduler: str | None = None,
) -> list[Route]:
    """A route for each prompt, such that the expected times (medians) together fit `total_ms`.

    judged: prompts with their judgements. plans: the calls of each candidate, the same for all prompts.
    or_fastest: if even the cheapest candidates exceed the budget, choose them instead of raising BudgetError.
    prefers_guided: choose guided candidates for as many prompts as possible, because there is a negative prompt.
    scheduler: the requests' scheduler.
    """
    costs = predict_costs(resources, plans)
    columns = [index for index, candidate in enumerate(resources.pool) if candidate.name in plans]
    quality = np.array([judgement.mean for _, judgement in judged])[:, columns]
    guided = np.array([resources.pool[column].is_guided for column in columns]) if prefers_guided else None
    try:
        each_ms = np.array(list(_batch_ms(costs, len(judged), total_ms).values()))
        seed = zlib.crc32("\0".join(prompt for prompt, _ in judged).encode("utf-8", "replace"))
        allocation, reason = _divide_by_chance(quality, each_ms, total_ms, guided, seed)
        if any(judgement.evidence is not None for _, judgement in judged):
            penalty = _penalty(resources, dict(zip(costs, each_ms.tolist(), strict=True)), allocation.multiplier)
            judged = [(prompt, judgement.at(penalty)) for prompt, judgement in judged]
            quality = np.array([judgement.mean for _, judgement in judged])[:, columns]
            allocation, reason = _divide_by_chance(quality, each_ms, total_ms, guided, seed)
    except BudgetError:
        if not or_fastest:
            raise
        totals_ms = np.array([cost.total_ms for cost in costs.values()])
        cheapest = int(totals_ms.argmin())
        allocation = Allocation(np.full(len(judged), cheapest), 0.0, len(judged) * float(totals_ms[cheapest]))
        reason = FASTEST
    blank, explained = _blank_options(resources, plans, costs), dict[tuple[int, int], tuple[Option, ...]]()
    routes = []
    for (prompt, judgement), choice in zip(judged, allocation.choice.tolist(), strict=True):
        key, chosen = (id(judgement), choice), blank[choice][1].candidate  # on averages, all prompts share one judgement
        ignores = prefers_guided and not chosen.is_guided
        why = f"{reason}; {chosen.name} cannot use the negative prompt" if ignores else reason
        if key not in explained:
            options = _judged_options(blank, judgement)
            equal = _equality(resources, judgement)
            explained[key] = explain(options, options[choice], why, prefers_guided=prefers_guided, equal=equal)
        routes.append(
            Route(
                prompt=prompt,
                max_ms=None,
                chosen=chosen,
                reason=why,
                options=explained[key],
                scheduler=resources.scheduler_title(chosen, scheduler),
                lam=allocation.multiplier,
                judgement=judgement,
                unfit=plans.unfit,
            )
        )
    return routes


def _divide_by_chance(
    quality: FloatArray, cost_ms: FloatArray, total_ms: float, guided: npt.NDArray[np.bool_] | None, seed: int
) -> tuple[Allocation, str]:
    """`_divide` with the prompts in random order, so that chance decides between prompts of equal estimates, as all have on averages.

    Then a share of them gets one candidate and the rest its neighbour on the hull of quality by cost, whatever order they came in.
    """
    order = np.random.default_rng(seed).permutation(len(quality))
    found, reason = _divide(quality[order], cost_ms, total_ms, guided)
    choice = np.empty_like(found.choice)
    choice[order] = found.choice
    return replace(found, choice=choice), reason


def _divide(quality: FloatArray, cost_ms: FloatArray, total_ms: float, guided: npt.NDArray[np.bool_] | None) -> tuple[Allocation, str]:
    """A candidate for each prompt and the reason; raises BudgetError if even the cheapest candidates exceed the budget.

    guided: bool[candidates], the candidates to choose for as many prompts as possible; None if the candidates are alike in this.
    """
    columns = np.flatnonzero(guided if guided is not None and guided.any() else np.ones(len(cost_ms), dtype=bool))
    is_limited = len(columns) < len(cost_ms)
    try:
        found = allocate(quality[:, columns], cost_ms[columns], total_ms)
    except BudgetError:
        if not is_limited:
            raise
        bonus = _GUIDED_FIRST * (float(np.ptp(quality)) + 1)
        found = replace(allocate(quality + bonus * np.asarray(guided), cost_ms, total_ms), multiplier=0.0)
        return found, f"best use of {total_ms:.0f} ms for {len(quality)} prompts, of which as many as possible use the negative prompt"
    reason = _reason(found, total_ms, len(quality))
    return replace(
        found, choice=columns[found.choice]
    ), f"{reason}; only guided candidates use the negative prompt" if is_limited else reason


def list_options(resources: Resources, plans: Plans, judgement: Judgement, forecast: Forecast = NO_WAIT) -> list[Option]:
    """The candidates in `plans`, in the pool's order, each with its expected quality, cost and memory.

    forecast: the wait for other requests.
    """
    return _judged_options(_blank_options(resources, plans, predict_costs(resources, plans, forecast)), judgement)


def _blank_options(resources: Resources, plans: Plans, costs: Mapping[str, Cost]) -> list[tuple[int, Option]]:
    """The candidates in `plans` with all that does not depend on the prompt, and their indices in the pool."""
    return [
        (
            index,
            Option(
                candidate=candidate,
                quality=0.0,
                quality_error=0.0,
                cost=costs[candidate.name],
                memory_bytes=_memory_bytes(resources, plans[candidate.name]),
                resident=candidate.has_bundle and not resources.missing(plans[candidate.name]),
                building_ms=_upgraded_ms(resources, plans[candidate.name]),
            ),
        )
        for index, candidate in enumerate(resources.pool)
        if candidate.name in plans
    ]


def _judged_options(blank: Sequence[tuple[int, Option]], judgement: Judgement) -> list[Option]:
    """The options with the expected qualities of one prompt."""
    mean, error = judgement.mean, judgement.standard_error
    return [
        replace(
            option,
            quality=float(mean[index]),
            quality_error=float(error[index]),
            label_interval=judgement.label_interval(index),
        )
        for index, option in blank
    ]


def _penalty(resources: Resources, each_ms: Mapping[str, float], lam: float) -> FloatArray:
    """float64[pool]: lam times milliseconds; infinite for candidates that are not in `each_ms`."""
    return np.array([lam * each_ms[each.name] if each.name in each_ms else math.inf for each in resources.pool])


def _equality(resources: Resources, judgement: Judgement) -> Equal:
    """Whether two options are equal within error."""
    place = {candidate.name: index for index, candidate in enumerate(resources.pool)}
    return lambda one, other: judgement.is_equal(place[one.candidate.name], place[other.candidate.name])


def predict_costs(resources: Resources, plans: Plans, forecast: Forecast = NO_WAIT) -> dict[str, Cost]:
    """The cost of each candidate in `plans`, by name, in the pool's order."""
    found = {}
    for each in resources.pool:
        if each.name in plans and each.has_bundle:
            calls = plans[each.name]
            loads, wait = resources.loads(calls, _count(calls)), forecast
            found[each.name] = resources.costs.predict(calls, loads, queue_ms=wait.queue_ms, queue_spread_ms=wait.queue_spread_ms)
        elif each.name in plans:
            found[each.name] = Cost(denoise_ms=resources.stated_ms.get(each.name) or 0.0, overhead_ms=0, text_ms=0, swap_ms=0, decode_ms=0)
    return found


def _batch_ms(costs: Mapping[str, Cost], prompts: int, total_ms: float) -> dict[str, float]:
    """Expected milliseconds of one prompt by candidate: without recent load if only that exceeds the budget and it was not seen just now.

    Raises BudgetError if the fastest exceeds the budget.
    """
    now = {name: cost.total_ms for name, cost in costs.items()}
    fastest = min(now, key=now.__getitem__)
    if prompts * now[fastest] <= total_ms:
        return now
    usual = {name: cost.total_ms / cost.recent_factor for name, cost in costs.items()}
    fits_idle = prompts * min(usual.values()) <= total_ms
    if fits_idle and costs[fastest].is_load_stale:
        return usual
    raise BudgetError(
        total_ms,
        fastest,
        prompts * now[fastest],
        prompts=prompts,
        reason=Reason.LOAD if fits_idle else Reason.TOO_SLOW,
        recent_factor=costs[fastest].recent_factor,
    )


def _upgraded_ms(resources: Resources, calls: Sequence[Call]) -> float | None:
    """Milliseconds of the calls with the engines that are being built; None if that is unknown or none is being built."""
    coming = resources.upgrade.expected_costs({call.engine for call in calls}) if resources.upgrade is not None else None
    return None if coming is None else resources.costs.predict(calls, instead=coming).total_ms


def _reason(allocation: Allocation, total_ms: float, prompts: int) -> str:
    if allocation.multiplier == 0:
        return f"best quality: {total_ms:.0f} ms are enough for the best candidate of all {prompts} prompts"
    return f"best use of {total_ms:.0f} ms for {prompts} prompts, where a millisecond is worth {allocation.multiplier:.3g} of quality"


def _count(calls: Sequence[Call]) -> int:
    """Images of a request with these calls."""
    return next((call.times // call.tiles for call in calls if call.stage is Stage.DECODE), 1)


def is_measured(resources: Resources, engine: str) -> bool:
    """Whether the memory of an engine was measured."""
    return resources.costs.memory_bytes(engine)[0] is not None


def _memory_bytes(resources: Resources, calls: Sequence[Call]) -> int:
    """Memory of the engines: as measured, else the actual memory of those that are resident and an estimate for the others."""
    engines = {call.engine: resources.engines.find(call.engine) for call in calls}
    known = sum(resources.memory_bytes(name) for name, engine in engines.items() if engine is not None or is_measured(resources, name))
    absent = {EngineName.parse(name)[:2]: name for name, engine in engines.items() if engine is None and not is_measured(resources, name)}
    return known + sum(map(resources.memory_bytes, absent.values()))  # graphs of one component share its weights
