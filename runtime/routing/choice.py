"""The choice: one option of several, within a budget, with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from costroute_rt.error import BudgetError, ConfigError
from costroute_rt.judgement import Judgement
from costroute_rt.route import Option, Route

FASTEST = "the fastest candidate, because nothing fits the budget"
"""The reason if no option fits and `or_fastest` is set."""


def choose(
    prompt: str,
    options: Sequence[Option],
    *,
    max_ms: float | None = None,
    lam: float = 0.0,
    tolerance: float = 0.0,
    or_fastest: bool = False,
    prefers_guided: bool = False,
    judgement: Judgement | None = None,
) -> Route:
    """Choose the option of highest quality minus lam times milliseconds among those that fit (CATImage, arXiv 2506.14753, eq. 5).

    max_ms: the budget for the upper estimate; None: everything fits. lam: quality that one millisecond is worth.
    tolerance: how far below the best value the cheapest option may be and still be chosen.
    or_fastest: if nothing fits, choose the fastest instead of raising.
    prefers_guided: choose among the guided candidates if any of them fits, because only they can use a negative prompt.
    judgement: where the options' quality comes from.
    Raises BudgetError if nothing fits, with the fastest option and the budget it needs.
    """
    if not options:
        raise ConfigError("options", options, "one candidate or more")
    fitting = [option for option in options if _fits(option, max_ms)]
    if fitting:
        guided = [option for option in fitting if option.candidate.is_guided] if prefers_guided else []
        chosen, reason = _best(guided or fitting, lam, tolerance), _reason(len(options), len(fitting), max_ms, lam, tolerance)
    else:
        chosen, reason = min(options, key=lambda option: option.p95_ms), FASTEST
        if not or_fastest:
            raise BudgetError(max_ms or 0.0, chosen.candidate.name, math.ceil(chosen.p95_ms))
    if prefers_guided:
        reason += describe_guidance(options, chosen)
    return Route(
        prompt=prompt,
        max_ms=max_ms,
        chosen=chosen.candidate,
        reason=reason,
        options=explain(options, chosen, reason, max_ms, prefers_guided=prefers_guided),
        lam=lam,
        tolerance=tolerance,
        judgement=judgement,
    )


def explain(
    options: Sequence[Option], chosen: Option, reason: str, max_ms: float | None = None, *, prefers_guided: bool = False
) -> tuple[Option, ...]:
    """The options with `fits` and `why` filled in. chosen: one of them."""

    def why(option: Option) -> str:
        if option is chosen:
            return f"chosen: {reason}"
        if max_ms is not None and not _fits(option, max_ms):
            return f"p95 {math.ceil(option.p95_ms)} ms exceeds the {max_ms:g} ms budget"
        quality, ms = round(option.quality - chosen.quality, 3), round(option.ms - chosen.ms)
        text = f"{quality + 0.0:+.3f} quality for {ms:+d} ms"
        ignores = prefers_guided and chosen.candidate.is_guided and not option.candidate.is_guided
        return f"{text}, but it cannot use the negative prompt" if ignores else text

    return tuple(replace(option, fits=_fits(option, max_ms), why=why(option)) for option in options)


def describe_guidance(options: Sequence[Option], chosen: Option) -> str:
    """What the negative prompt of a request means for the choice, as an addition to the reason; empty if it means nothing."""
    guided = sum(option.candidate.is_guided for option in options)
    if guided == len(options):
        return ""
    if chosen.candidate.is_guided:
        return "; only guided candidates were considered, because others cannot use the negative prompt"
    if guided:
        return "; the negative prompt is not used, because no guided candidate fits the budget"
    return f"; the negative prompt is not used, because {'the candidate is' if len(options) == 1 else 'all candidates are'} not guided"


def _fits(option: Option, max_ms: float | None) -> bool:
    return max_ms is None or option.p95_ms <= max_ms


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
