"""Candidates: the ways to make an image that a router chooses from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from costroute_rt.error import ConfigError
from costroute_rt.request import check_flag, check_name, check_number, check_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to make an image: denoiser, scheduler, number of steps, guidance and decoder."""

    name: str
    family: str = ""
    """Name of the family it belongs to; empty for a candidate of a pool that no bundle has."""
    denoiser: str
    """Component name in the family."""
    scheduler: str
    """Name of a scheduler configuration of the family."""
    num_inference_steps: int
    guidance_scale: float = 1.0
    guidance_start: float = 0.0
    """Share of the steps before guidance starts, 0 to 1."""
    guidance_end: float = 1.0
    """Share of the steps after which guidance ends; the steps without it cost half, if the denoiser has a graph for them."""
    guidance_scale_last: float | None = None
    """Scale of the last guided step, towards which the scale changes evenly; None means that it stays the same."""
    guidance_rescale: float = 0.0
    """Share of the way, 0 to 1, by which guided outputs get the standard deviation of the prompt's (Lin et al. 2024, Section 3.4)."""
    decoder: str = "vae"
    """Component name in the family."""
    is_guided: bool = False
    """Whether guidance is classifier-free: each step then runs the denoiser on the negative prompt too."""

    def __post_init__(self) -> None:
        for name in ("name", "family", "denoiser", "scheduler", "decoder"):
            check_name(name, getattr(self, name))
        steps = check_whole("num_inference_steps", self.num_inference_steps)
        if steps < 1:
            raise ConfigError("num_inference_steps", steps, "1 or more")
        scale = check_number("guidance_scale", self.guidance_scale, "a finite number, 0 or more")
        if scale < 0:
            raise ConfigError("guidance_scale", scale, "a finite number, 0 or more")
        self._check_guidance()
        object.__setattr__(self, "num_inference_steps", steps)
        object.__setattr__(self, "guidance_scale", scale)
        object.__setattr__(self, "is_guided", check_flag("is_guided", self.is_guided))

    def _check_guidance(self) -> None:
        for name in ("guidance_start", "guidance_end", "guidance_rescale"):
            value = check_number(name, getattr(self, name), "a number from 0 to 1")
            if not 0 <= value <= 1:
                raise ConfigError(name, value, "a number from 0 to 1")
            object.__setattr__(self, name, value)
        if not self.guidance_start < self.guidance_end:
            raise ConfigError("guidance_end", self.guidance_end, f"more than guidance_start, {self.guidance_start:g}")
        if self.guidance_scale_last is not None:
            last = check_number("guidance_scale_last", self.guidance_scale_last, "a finite number, 0 or more")
            if last < 0:
                raise ConfigError("guidance_scale_last", last, "a finite number, 0 or more")
            object.__setattr__(self, "guidance_scale_last", last)

    def guidance(self, rows: int | None = None, steps: int | None = None) -> tuple[float, ...]:
        """The guidance scale of each row of a run; 1 before guidance starts and after it ends. At least one step is guided.

        rows: of the step table, one for each step or, but for the last, two; None means one for each step.
        steps: those that run; None means the candidate's.
        """
        steps = self.num_inference_steps if steps is None else steps
        first = min(round(self.guidance_start * steps), steps - 1)
        end = max(round(self.guidance_end * steps), first + 1)
        last = self.guidance_scale if self.guidance_scale_last is None else self.guidance_scale_last
        slope = (last - self.guidance_scale) / max(end - first - 1, 1)
        scales = [self.guidance_scale + slope * (step - first) if first <= step < end else 1.0 for step in range(steps)]
        return tuple(scales) if rows is None or rows == steps else tuple(scales[row // 2] for row in range(rows))

    @classmethod
    def without_bundle(cls, name: str) -> Candidate:
        """A candidate that only labels are known of: it is routed to, and cannot be run here."""
        return cls(name=name, denoiser=name, scheduler="", num_inference_steps=1, decoder="")

    @property
    def has_bundle(self) -> bool:
        """Whether it can be run."""
        return bool(self.family)


def find_candidate(pool: Iterable[Candidate], name: str) -> Candidate:
    """The candidate called `name`; raises ConfigError that lists the known names."""
    known = {candidate.name: candidate for candidate in pool}
    if name not in known:
        raise ConfigError("candidate", name, f"one of {', '.join(known)}")
    return known[name]
