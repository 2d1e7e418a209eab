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
        object.__setattr__(self, "num_inference_steps", steps)
        object.__setattr__(self, "guidance_scale", scale)
        object.__setattr__(self, "is_guided", check_flag("is_guided", self.is_guided))

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
