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
    wanted = [option for option in options if option.candidate.is_guided] if prefers_guided else []
    if not any(_fits(option, max_ms) for option in wanted):
        wanted = list(options)
    fitting = [option for option in wanted if _fits(option, max_ms)]
    if fitting:
        chosen, reason = _best(fitting, lam, tolerance), _reason(options, wanted, len(fitting), max_ms, lam, tolerance)
    else:
        chosen, reason = min(options, key=lambda option: option.p95_ms), FASTEST
        if not or_fastest:
            raise BudgetError(max_ms or 0.0, chosen.candidate.name, math.ceil(chosen.p95_ms))
    if prefers_guided and not chosen.candidate.is_guided:
        reason += f"; {'none of them can' if len(fitting) > 1 else f'{chosen.candidate.name} cannot'} use the negative prompt"
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
    """The options with `fits` and `why` filled in. chosen: one of them. prefers_guided: there is a negative prompt."""

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


def _fits(option: Option, max_ms: float | None) -> bool:
    return max_ms is None or option.p95_ms <= max_ms


def _best(fitting: Sequence[Option], lam: float, tolerance: float) -> Option:
    """The cheapest option whose value is within the tolerance of the best; of equally cheap ones, the one of highest value."""

    def value(option: Option) -> float:
        return option.quality - lam * option.ms

    floor = max(value(option) for option in fitting) - tolerance
    return min((option for option in fitting if value(option) >= floor), key=lambda option: (option.ms, -value(option)))


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
