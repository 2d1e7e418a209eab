"""Routes: which candidate a prompt gets, at what cost, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from costroute_rt.candidate import Candidate, find_candidate
from costroute_rt.judgement import Judgement
from costroute_rt.value import Value, shorten


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cost(Value):
    """Predicted milliseconds of a request, by stage."""

    overhead_ms: float
    """Tokenizing, routing, and the loop on the host."""
    text_ms: float
    swap_ms: float
    """Loading engines that are not resident."""
    denoise_ms: float
    decode_ms: float
    queue_ms: float = 0.0
    """Expected wait for other requests."""
    spread_ms: float = 0.0
    """Distance from the total to its 95th percentile, by the spread of single calls."""
    queue_spread_ms: float = 0.0
    """Distance from the wait to its 95th percentile."""
    margin_ms: float = 0.0
    """Safety margin, learned from how far recent images exceeded their estimates."""
    encode_ms: float = 0.0
    """Turning the initial image into a latent."""
    recent_factor: float = 1.0
    """How many times longer than usual the request may take now, because recent runs were slow; 1 or more."""
    is_load_stale: bool = False
    """Whether no slow run was seen in the last seconds, so that the load behind `recent_factor` may be over."""

    def __repr__(self) -> str:
        stages = ", ".join(
            f"{name} {getattr(self, f'{name}_ms'):.1f}" for name in ("overhead", "text", "swap", "encode", "denoise", "decode")
        )
        return f"<Cost {self.total_ms:.0f} ms (p95 {self.p95_ms:.0f}): {stages}>"

    @property
    def total_ms(self) -> float:
        """The expected time (median)."""
        return self.queue_ms + self.overhead_ms + self.text_ms + self.swap_ms + self.encode_ms + self.denoise_ms + self.decode_ms

    @property
    def p95_ms(self) -> float:
        """The upper estimate, which is compared with the budget: at least 95 of 100 images take no longer."""
        return self.total_ms + math.hypot(self.spread_ms, self.queue_spread_ms) + self.margin_ms

    @property
    def own_p95_ms(self) -> float:
        """The upper estimate without the wait."""
        return self.total_ms - self.queue_ms + self.spread_ms + self.margin_ms

    @property
    def idle_ms(self) -> float:
        """The upper estimate without the wait and without recent load."""
        return self.own_p95_ms / self.recent_factor

    def to_json(self) -> dict[str, float]:
        """Every stage and both estimates, in milliseconds."""
        names = ("queue_ms", "overhead_ms", "text_ms", "swap_ms", "encode_ms", "denoise_ms", "decode_ms")
        stages = {name: getattr(self, name) for name in names}
        return {name: round(value, 3) for name, value in {**stages, "total_ms": self.total_ms, "p95_ms": self.p95_ms}.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Option(Value):
    """One candidate with its expected quality and cost for a prompt."""

    candidate: Candidate
    quality: float
    """Expected score for this prompt; higher is better."""
    quality_error: float
    """Standard error of `quality`."""
    cost: Cost
    memory_bytes: int
    """Memory of the engines that the candidate needs."""
    resident: bool
    """Whether all these engines are loaded."""
    fits: bool = True
    """Whether it may run within the budget: `p95_ms` is within it, or this candidate is tried because recent load may be over."""
    why: str = ""
    """Reason why it was chosen or not."""
    label_interval: tuple[float, float] | None = None
    """What the score of one image is within for 80 of 100 prompts; None if that was not measured."""
    is_equal: bool = False
    """Whether its quality and the chosen candidate's are equal within error."""
    building_ms: float | None = None
    """Predicted milliseconds with the engines that are being built in the background; None if there are none, or if it is unknown."""

    def __repr__(self) -> str:
        quality = f"quality {self.quality:.3f} +- {self.quality_error:.3f}"
        fits = "fits" if self.fits else "does not fit"
        return f"<Option {self.candidate.name}: {quality}, {self.ms:.0f} ms (p95 {self.p95_ms:.0f}), {fits}>"

    @property
    def ms(self) -> float:
        """Predicted milliseconds (median)."""
        return self.cost.total_ms

    @property
    def p95_ms(self) -> float:
        """Predicted milliseconds (95th percentile), which must fit the budget."""
        return self.cost.p95_ms

    def value(self, lam: float) -> float:
        """Expected quality, less what its time costs; lam: quality that one millisecond is worth."""
        return self.quality - lam * self.ms

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
            "label_interval": None if self.label_interval is None else [round(end, 6) for end in self.label_interval],
            "equal_within_error": self.is_equal,
            "building_ms": None if self.building_ms is None else round(self.building_ms, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route(Value):
    """A decision with its reasons."""

    prompt: str
    max_ms: float | None
    chosen: Candidate
    reason: str
    options: tuple[Option, ...]
    """Every candidate considered, in the pool's order."""
    lam: float = 0.0
    """Quality that one millisecond was worth; for a route of a plan, the plan's multiplier."""
    tolerance: float = 0.0
    scheduler: str = ""
    """What the image is sampled with, such as `dpmpp_2m karras`."""
    judgement: Judgement | None = None
    """The expected qualities and where they come from."""
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Candidates that cannot serve the request, such as its image size, with the reason; they are not among the options."""

    def __repr__(self) -> str:
        budget = "" if self.max_ms is None else f" of {self.max_ms:.0f} ms"
        cost = f"{self.option.ms:.0f} ms (p95 {self.option.p95_ms:.0f}){budget}"
        return f"<Route {self.chosen.name} for {shorten(self.prompt)}, {cost}: {self.reason}>"

    def _repr_html_(self) -> str:
        """A table of the options, for notebooks."""
        header = ("", "candidate", "quality", "ms", "p95 ms", "loaded", "why")
        rows = [
            (
                "*" if option.candidate == self.chosen else "",
                option.candidate.name,
                f"{option.quality:.3f} ± {option.quality_error:.3f}",
                f"{option.ms:.0f}",
                f"{option.p95_ms:.0f}",
                "yes" if option.resident else "no",
                option.why,
            )
            for option in self.options
        ]
        heads = "".join(f"<th>{each}</th>" for each in header)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        return f"<p>{escape(repr(self)[1:-1])}</p><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"

    @property
    def option(self) -> Option:
        """The option of the chosen candidate."""
        return next(option for option in self.options if option.candidate == self.chosen)

    def find(self, name: str) -> Option:
        """The option of the candidate of that name; raises ConfigError."""
        find_candidate([option.candidate for option in self.options], name)
        return next(option for option in self.options if option.candidate.name == name)

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        return {
            "prompt": self.prompt,
            "max_ms": self.max_ms,
            "chosen": self.chosen.name,
            "scheduler": self.scheduler,
            "reason": self.reason,
            "lam": self.lam,
            "tolerance": self.tolerance,
            "router": None if self.judgement is None else self.judgement.to_json(),
            "options": [option.to_json() for option in self.options],
            "unfit": dict(self.unfit),
        }
