"""The choice: one option of several, within a budget, with reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from costroute_rt.error import BudgetError, ConfigError, Reason
from costroute_rt.judgement import Judgement
from costroute_rt.route import Cost, Option, Route

FASTEST = "the fastest candidate, because nothing fits the budget"
"""The reason if no option fits and `or_fastest` is set."""
Equal = Callable[[Option, Option], bool]
"""Whether the qualities of two options are equal within error."""
TRIAL = "a trial: it fits the budget if the load of the last minutes is over"
"""The reason if only recent load, not seen in the last seconds, keeps every option from fitting."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a request may take."""

    max_ms: float | None = None
    """The budget for the upper estimate; None means no budget."""
    slack_ms: float = math.inf
    """Time for the request itself, without its wait: beyond it, requests that were accepted before would be late."""

    def allows(self, wait_ms: float, own_ms: float) -> bool:
        """Whether a request may wait and then take so long."""
        return own_ms <= self.slack_ms and (self.max_ms is None or wait_ms + own_ms <= self.max_ms)

    def fits(self, cost: Cost) -> bool:
        """Whether the upper estimate is allowed."""
        return self.allows(cost.p95_ms - cost.own_p95_ms, cost.own_p95_ms)


def choose(
    prompt: str,
    options: Sequence[Option],
    *,
    max_ms: float | None = None,
    slack_ms: float = math.inf,
    lam: float = 0.0,
    tolerance: float = 0.0,
    or_fastest: bool = False,
    prefers_guided: bool = False,
    judgement: Judgement | None = None,
    equal: Equal = lambda one, other: False,
) -> Route:
    """Choose the option of highest quality minus lam times milliseconds among those that fit (CATImage, arXiv 2506.14753, eq. 5).

    max_ms, slack_ms: see `Limit`. lam: quality that one millisecond is worth.
    tolerance: how far below the best value the cheapest option may be and still be chosen.
    or_fastest: if nothing fits, choose the fastest instead of raising.
    prefers_guided: choose among the guided candidates if any of them fits, because only they can use a negative prompt.
    judgement: where the options' quality comes from. equal: which options are named as equal within error.
    That does not change the choice: of options that are equal within error, the one of higher expected value is the better bet over many
    prompts. Of exactly equal values the cheapest is chosen, and with a tolerance, of those within it.
    If nothing fits because of load that was not seen lately, the fastest of those that fit without it is tried.
    Raises BudgetError if nothing fits, with the fastest option, the budget it needs, and the reason.
    """
    if not options:
        raise ConfigError("options", options, "one candidate or more")
    limit = Limit(max_ms, slack_ms)
    wanted = [option for option in options if option.candidate.is_guided] if prefers_guided else []
    if not any(limit.fits(option.cost) for option in wanted):
        wanted = list(options)
    fitting = [option for option in wanted if limit.fits(option.cost)]
    if fitting:
        chosen, reason = _best(fitting, lam, tolerance), _reason(options, wanted, len(fitting), max_ms, lam, tolerance)
    else:
        chosen, reason = _without_fitting(options, limit, or_fastest)
    why = reason + _equals([option for option in fitting if option is not chosen and equal(option, chosen)])
    if prefers_guided and not chosen.candidate.is_guided:
        why += f"; {'none of them can' if len(fitting) > 1 else f'{chosen.candidate.name} cannot'} use the negative prompt"
    return Route(
        prompt=prompt,
        max_ms=max_ms,
        chosen=chosen.candidate,
        reason=why,
        options=explain(options, chosen, why, limit, prefers_guided=prefers_guided, is_trial=reason == TRIAL, equal=equal),
        lam=lam,
        tolerance=tolerance,
        judgement=judgement,
    )


def why_too_slow(costs: Sequence[Cost], max_ms: float) -> Reason:
    """What keeps every one of these costs from fitting the budget, judged by their upper estimates."""
    if any(cost.own_p95_ms <= max_ms for cost in costs):
        return Reason.QUEUE
    return Reason.LOAD if any(cost.idle_ms <= max_ms for cost in costs) else Reason.TOO_SLOW


def explain(
    options: Sequence[Option],
    chosen: Option,
    reason: str,
    limit: Limit = Limit(),
    *,
    prefers_guided: bool = False,
    is_trial: bool = False,
    equal: Equal = lambda one, other: False,
) -> tuple[Option, ...]:
    """The options with `fits`, `is_equal` and `why` filled in.

    chosen: one of them. prefers_guided: whether there is a negative prompt. is_trial: whether the chosen one counts as fitting.
    equal: which are equal within error.
    """

    def why(option: Option, fits: bool, is_equal: bool) -> str:
        if option is chosen:
            return f"chosen: {reason}"
        if not fits:
            if limit.max_ms is None or option.p95_ms <= limit.max_ms:
                return "it would delay requests that were accepted before"
            return f"p95 {math.ceil(option.p95_ms)} ms exceeds the {limit.max_ms:g} ms budget"
        quality, ms = round(option.quality - chosen.quality, 3), round(option.ms - chosen.ms)
        text = f"{quality + 0.0:+.3f} quality{' (equal within error)' if is_equal else ''} for {ms:+d} ms"
        ignores = prefers_guided and chosen.candidate.is_guided and not option.candidate.is_guided
        return f"{text}, but it cannot use the negative prompt" if ignores else text

    explained = []
    for each in options:  # for each prompt of a plan: nothing is asked twice
        fits, is_equal = limit.fits(each.cost), each is not chosen and equal(each, chosen)
        is_tried = each is chosen and is_trial
        explained.append(replace(each, fits=fits or is_tried, is_equal=is_equal, why=why(each, fits, is_equal)))
    return tuple(explained)


def _equals(options: Sequence[Option]) -> str:
    """Names some options that are equal within error to the chosen one."""
    names = [option.candidate.name for option in options[:_NAMED]]
    more = f" and {len(options) - _NAMED} more" if len(options) > _NAMED else ""
    return f"; equal within error: {', '.join(names)}{more}" if names else ""


def find_trial(costs: Mapping[str, Cost], limit: Limit) -> str:
    """Name of what to try although nothing fits: the fastest of those that fit if load that was not seen lately is over.

    costs: those of all candidates, by name. Raises BudgetError if there is none.
    """
    trials = [name for name, cost in costs.items() if cost.is_load_stale and limit.allows(cost.queue_ms, cost.idle_ms)]
    if trials:
        return min(trials, key=lambda name: costs[name].p95_ms)
    max_ms = limit.max_ms or 0.0
    reason = why_too_slow(list(costs.values()), max_ms)
    # Under load, of those that would fit without it: another one may be faster now.
    named = min((each for each in costs if reason is not Reason.LOAD or costs[each].idle_ms <= max_ms), key=lambda name: costs[name].p95_ms)
    cost = costs[named]
    raise BudgetError(
        max_ms, named, math.ceil(cost.p95_ms), reason=reason, queue_ms=cost.p95_ms - cost.own_p95_ms, recent_factor=cost.recent_factor
    )


def _without_fitting(options: Sequence[Option], limit: Limit, or_fastest: bool) -> tuple[Option, str]:
    """What to run although no option fits, and why; raises BudgetError if nothing."""
    if or_fastest:
        return min(options, key=_p95_ms), FASTEST
    trial = find_trial({option.candidate.name: option.cost for option in options}, limit)
    return next(option for option in options if option.candidate.name == trial), TRIAL


def _p95_ms(option: Option) -> float:
    return option.p95_ms


def _best(fitting: Sequence[Option], lam: float, tolerance: float) -> Option:
    """The cheapest option whose value is within the tolerance of the best; of equally cheap ones, the one of highest value."""
    floor = max(option.value(lam) for option in fitting) - tolerance
    return min((option for option in fitting if option.value(lam) >= floor), key=lambda option: (option.ms, -option.value(lam)))


def _reason(options: Sequence[Option], wanted: Sequence[Option], fitting: int, max_ms: float | None, lam: float, tolerance: float) -> str:
    """wanted: the options that were considered: all, or the guided ones because of a negative prompt. fitting: how many of them fit."""
    is_limited = len(wanted) < len(options)
    if len(wanted) == 1:
        return f"the only candidate {'that can use the negative prompt' if is_limited else 'considered'}"
    rule = "best quality" if lam == 0 else f"best quality minus {lam:g} per ms"
    if tolerance:
        rule = f"cheapest within {tolerance:g} of the {rule}"
    candidates = "candidates that can use the negative prompt" if is_limited else "candidates"
    if max_ms is not None:
        return f"{rule} among the {fitting} of {len(wanted)} {candidates} within {max_ms:g} ms"
    return f"{rule} among the {len(wanted)} {candidates}" if is_limited else rule
