"""The choice: one option of several, within a budget, with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from costroute_rt.error import BudgetError, ConfigError, Reason
from costroute_rt.judgement import Judgement
from costroute_rt.route import Cost, Option, Route

FASTEST = "the fastest candidate, because nothing fits the budget"
"""The reason if no option fits and `or_fastest` is set."""
TRIAL = "a trial: it fits the budget if the load of the last minutes is over"
"""The reason if only recent load, not seen in the last seconds, keeps every option from fitting."""


def choose(
    prompt: str,
    options: Sequence[Option],
    *,
    max_ms: float | None = None,
    lam: float = 0.0,
    tolerance: float = 0.0,
    or_fastest: bool = False,
    judgement: Judgement | None = None,
) -> Route:
    """Choose the option of highest quality minus lam times milliseconds among those that fit (CATImage, arXiv 2506.14753, eq. 5).

    max_ms: the budget for the upper estimate; None: everything fits. lam: quality that one millisecond is worth.
    tolerance: how far below the best value the cheapest option may be and still be chosen.
    or_fastest: if nothing fits, choose the fastest instead of raising. judgement: where the options' quality comes from.
    If nothing fits because of load that was not seen lately, the fastest of those that fit without it is tried.
    Raises BudgetError if nothing fits, with the fastest option, the budget it needs, and the reason.
    """
    if not options:
        raise ConfigError("options", options, "one candidate or more")
    fitting = [option for option in options if _fits(option, max_ms)]
    if fitting:
        chosen, reason = _best(fitting, lam, tolerance), _reason(len(options), len(fitting), max_ms, lam, tolerance)
    else:
        chosen, reason = _without_fitting(options, max_ms or 0.0, or_fastest)
    return Route(
        prompt=prompt,
        max_ms=max_ms,
        chosen=chosen.candidate,
        reason=reason,
        options=explain(options, chosen, reason, max_ms),
        lam=lam,
        tolerance=tolerance,
        judgement=judgement,
    )


def why_too_slow(costs: Sequence[Cost], max_ms: float) -> Reason:
    """What keeps every one of these costs from fitting the budget, judged by their upper estimates."""
    if any(cost.p95_ms - cost.queue_ms <= max_ms for cost in costs):
        return Reason.QUEUE
    return Reason.LOAD if any(cost.idle_ms <= max_ms for cost in costs) else Reason.TOO_SLOW


def explain(options: Sequence[Option], chosen: Option, reason: str, max_ms: float | None = None) -> tuple[Option, ...]:
    """The options with `fits` and `why` filled in. chosen: one of them."""
    return tuple(
        replace(option, fits=_fits(option, max_ms) or (option is chosen and reason == TRIAL), why=_why(option, chosen, reason, max_ms))
        for option in options
    )


def _fits(option: Option, max_ms: float | None) -> bool:
    return max_ms is None or option.p95_ms <= max_ms


def _without_fitting(options: Sequence[Option], max_ms: float, or_fastest: bool) -> tuple[Option, str]:
    """What to run although no option fits, and why; raises BudgetError if nothing."""
    if or_fastest:
        return min(options, key=_p95_ms), FASTEST
    trials = [option for option in options if option.cost.is_load_stale and option.cost.queue_ms + option.cost.idle_ms <= max_ms]
    if trials:
        return min(trials, key=_p95_ms), TRIAL
    reason = why_too_slow([option.cost for option in options], max_ms)
    # Under load, of those that would fit without it: another one may be faster now.
    named = min((each for each in options if reason is not Reason.LOAD or each.cost.idle_ms <= max_ms), key=_p95_ms)
    raise BudgetError(
        max_ms,
        named.candidate.name,
        math.ceil(named.p95_ms),
        reason=reason,
        queue_ms=named.cost.queue_ms,
        recent_factor=named.cost.recent_factor,
    )


def _p95_ms(option: Option) -> float:
    return option.p95_ms


def _best(fitting: Sequence[Option], lam: float, tolerance: float) -> Option:
    """The cheapest option whose value is within the tolerance of the best; of equally cheap ones, the one of highest value."""

    def value(option: Option) -> float:
        return option.quality - lam * option.ms

    floor = max(value(option) for option in fitting) - tolerance
    return min((option for option in fitting if value(option) >= floor), key=lambda option: (option.ms, -value(option)))


def _reason(options: int, fitting: int, max_ms: float | None, lam: float, tolerance: float) -> str:
    if options == 1:
        return "the only candidate considered"
    rule = "best quality" if lam == 0 else f"best quality minus {lam:g} per ms"
    if tolerance:
        rule = f"cheapest within {tolerance:g} of the {rule}"
    return rule if max_ms is None else f"{rule} among the {fitting} of {options} candidates within {max_ms:g} ms"


def _why(option: Option, chosen: Option, reason: str, max_ms: float | None) -> str:
    if option is chosen:
        return f"chosen: {reason}"
    if max_ms is not None and not _fits(option, max_ms):
        return f"p95 {math.ceil(option.p95_ms)} ms exceeds the {max_ms:g} ms budget"
    quality, ms = round(option.quality - chosen.quality, 3), round(option.ms - chosen.ms)
    return f"{quality + 0.0:+.3f} quality for {ms:+d} ms"
