"""Routing: which candidate a prompt gets, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from costroute_rt.candidate import Candidate
from costroute_rt.cost.cost_model import Cost
from costroute_rt.error import BudgetError, ConfigError
from costroute_rt.family.upgrade import Building
from costroute_rt.routing.quality import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One candidate as the router saw it."""

    candidate: Candidate
    quality: float
    """Expected score for this prompt; higher is better."""
    quality_error: float
    """Its standard error."""
    cost: Cost
    memory_bytes: int
    """Of the engines it needs."""
    resident: bool
    """Whether all of them are loaded."""
    fits: bool = True
    why: str = ""
    """Why it was chosen or not."""
    building_ms: float | None = None
    """Predicted milliseconds with the engines that are being built or wait for the next image; None: unknown, or none are."""

    @property
    def ms(self) -> float:
        """Predicted milliseconds, middle estimate."""
        return self.cost.total_ms

    @property
    def p95_ms(self) -> float:
        """Predicted milliseconds, upper estimate: what must fit."""
        return self.cost.p95_ms

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        return {
            "candidate": self.candidate.name,
            "quality": self.quality,
            "quality_error": self.quality_error,
            "ms": round(self.ms, 3),
            "p95_ms": round(self.p95_ms, 3),
            "stages": self.cost.to_json(),
            "memory_bytes": self.memory_bytes,
            "resident": self.resident,
            "fits": self.fits,
            "why": self.why,
            "building_ms": None if self.building_ms is None else round(self.building_ms, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A decision with its reasons."""

    prompt: str
    max_ms: float | None
    chosen: Candidate
    reason: str
    options: tuple[Option, ...]
    """Every candidate that was weighed, in the pool's order."""
    lam: float = 0.0
    """Quality one millisecond was taken to be worth; of a plan for many prompts, its multiplier."""
    tolerance: float = 0.0
    judgement: Judgement | None = None
    """Where the expected qualities come from."""
    building: Building | None = None
    """How building better engines goes; None where none are being built. `Option.ms` is the cost on those in use."""

    @property
    def option(self) -> Option:
        """The chosen candidate's."""
        return next(option for option in self.options if option.candidate == self.chosen)

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        return {
            "prompt": self.prompt,
            "max_ms": self.max_ms,
            "chosen": self.chosen.name,
            "reason": self.reason,
            "lam": self.lam,
            "tolerance": self.tolerance,
            "router": None if self.judgement is None else self.judgement.to_json(),
            "building": None if self.building is None else self.building.to_json(),
            "options": [option.to_json() for option in self.options],
        }


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
    """Takes argmax q_m(x) - lam * c_m among the options that fit (CATImage, arXiv 2506.14753, eq. 5).

    max_ms: what the upper estimate must not exceed; None: everything fits.
    lam: quality one millisecond is worth. tolerance: how much below the best value the cheapest may be taken.
    or_fastest: where nothing fits, take the fastest instead of raising. judgement: what the options' quality comes from.
    Raises BudgetError where nothing fits, naming the fastest option and the budget it needs.
    """
    if not options:
        raise ConfigError("options", options, "one candidate or more")
    judged = [replace(option, fits=max_ms is None or option.p95_ms <= max_ms) for option in options]
    fitting = [option for option in judged if option.fits]
    if fitting:
        chosen, reason = _best(fitting, lam, tolerance), _reason(len(judged), len(fitting), max_ms, lam, tolerance)
    else:
        chosen = min(judged, key=lambda option: option.p95_ms)
        if not or_fastest:
            raise BudgetError(max_ms or 0.0, chosen.candidate.name, math.ceil(chosen.p95_ms))
        reason = "the fastest, as nothing fits the budget"
    return Route(
        prompt=prompt, max_ms=max_ms, chosen=chosen.candidate, reason=reason, options=explain(judged, chosen, reason, max_ms), lam=lam,
        tolerance=tolerance, judgement=judgement,
    )  # fmt: skip


def explain(options: Sequence[Option], chosen: Option, reason: str, max_ms: float | None = None) -> tuple[Option, ...]:
    """The options, each saying why it is `chosen`, one of them, or is not."""
    return tuple(replace(option, why=_why(option, chosen, reason, max_ms)) for option in options)


def _best(fitting: Sequence[Option], lam: float, tolerance: float) -> Option:
    """Of the options whose value is within the tolerance of the best, the cheapest; of equally cheap ones the most valuable."""

    def value(option: Option) -> float:
        return option.quality - lam * option.ms

    floor = max(value(option) for option in fitting) - tolerance
    return min((option for option in fitting if value(option) >= floor), key=lambda option: (option.ms, -value(option)))


def _reason(options: int, fitting: int, max_ms: float | None, lam: float, tolerance: float) -> str:
    if options == 1:
        return "the only candidate asked for"
    rule = "best quality" if lam == 0 else f"best quality less {lam:g} per millisecond"
    if tolerance:
        rule = f"cheapest within {tolerance:g} of the {rule}"
    return rule if max_ms is None else f"{rule} of the {fitting} of {options} candidates that fit {max_ms:g} ms"


def _why(option: Option, chosen: Option, reason: str, max_ms: float | None) -> str:
    if option is chosen:
        return f"chosen: {reason}"
    if not option.fits:
        return f"may need {option.p95_ms:.0f} ms, {max_ms:g} ms are allowed"
    if option.quality > chosen.quality:
        return f"{option.ms - chosen.ms:.0f} ms dearer for {option.quality - chosen.quality:.3f} more quality"
    return f"expected quality {option.quality:.3f}, the chosen one's is {chosen.quality:.3f}"
